(async () => {
  const charts = document.querySelectorAll("script[data-attnlib-plotly]");
  try {
    const packed = Uint8Array.from(atob(document.getElementById("attnlib-plotly-source").textContent.trim()), c => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.appendChild(script);
    for (const one of charts) {
      const { data, layout } = JSON.parse(one.textContent);
      await Plotly.newPlot(one.dataset.attnlibPlotly, data, layout, { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["sendChartToCloud"] });
    }
    document.body.dataset.attnlibCharts = charts.length;
  } catch (error) {
    for (const one of charts) {
      document.getElementById(one.dataset.attnlibPlotly).textContent = "This chart needs a browser of 2023 or later: " + error;
    }
  }
})();
