// Kernel: what the page does not hold is asked for, and pasted pictures are handed over.

/** Where a kernel answers, sources may ask it for what the page does not hold. */
function linkKernel(viewer) {
  const { model } = viewer;
  if (!model.send || !viewer.page.kernel) return;
  const waiting = new Map();
  const mine = crypto.getRandomValues(new Uint32Array(2)).join("-"); // other views hear the same answers
  let number = 0;
  viewer.onMessage = (content, buffers) => {
    const done = waiting.get(content.answer);
    if (!done) return;
    waiting.delete(content.answer);
    if (content.error) { done.fail(new Error(content.error)); return; }
    done.keep({ ...content, buffers: (buffers ?? []).map((one) => {
      const bytes = bytesOf(one).slice();
      return new Float32Array(bytes.buffer, 0, bytes.byteLength / 4);
    }) });
  };
  model.on("msg:custom", viewer.onMessage);
  viewer.onPaste = async (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file || !viewer.box?.contains(document.activeElement)) return;
    event.preventDefault();
    model.send({ picture: file.name }, undefined, [await file.arrayBuffer()]);
  };
  document.addEventListener("paste", viewer.onPaste, true);
  viewer.sources.forEach((source, place) => {
    source.ask = async (request) => {
      const id = `${mine}-${++number}`;
      const answer = await new Promise((keep, fail) => {
        waiting.set(id, { keep, fail });
        model.send({ ask: id, source: place, request });
      });
      return source.read(answer);
    };
    source.onAnswer = () => viewer.schedule();
  });
}
