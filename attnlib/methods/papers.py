"""BibTeX entries that more than one method card shows."""

__all__ = ["ABNAR", "SELVARAJU"]

ABNAR = """@inproceedings{abnar2020quantifying,
  title = {Quantifying Attention Flow in Transformers},
  author = {Abnar, Samira and Zuidema, Willem},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics},
  pages = {4190--4197},
  year = {2020}
}"""
SELVARAJU = """@inproceedings{selvaraju2017grad,
  title = {{Grad-CAM}: Visual Explanations from Deep Networks via Gradient-Based Localization},
  author = {Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek and Vedantam, Ramakrishna
            and Parikh, Devi and Batra, Dhruv},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision},
  pages = {618--626},
  year = {2017}
}"""
