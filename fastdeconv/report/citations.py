"""The papers that a result rests on: as every manifest cites them, and as BibTeX."""

from __future__ import annotations

from ..version import __version__

__all__ = ["AURALISATION", "DECONVNET", "cite"]

AURALISATION = (
    "K. Choi, G. Fazekas, M. Sandler: Explaining Deep Convolutional Neural Networks on "
    "Music Classification. arXiv:1607.02444, 2016."
)
DECONVNET = (
    "M. D. Zeiler, R. Fergus: Visualizing and Understanding Convolutional Networks. "
    "ECCV 2014. arXiv:1311.2901."
)
_BIBTEX = r"""@article{choi2016explaining,
  author  = {Choi, Keunwoo and Fazekas, Gy{\"o}rgy and Sandler, Mark},
  title   = {Explaining Deep Convolutional Neural Networks on Music Classification},
  journal = {arXiv preprint arXiv:1607.02444},
  year    = {2016}
}

@inproceedings{zeiler2014visualizing,
  author    = {Zeiler, Matthew D. and Fergus, Rob},
  title     = {Visualizing and Understanding Convolutional Networks},
  booktitle = {Computer Vision -- {ECCV} 2014},
  pages     = {818--833},
  year      = {2014},
  doi       = {10.1007/978-3-319-10590-1_53}
}

@software{fastdeconv,
  author  = {{The fastdeconv authors}},
  title   = {{fastdeconv}: deconvnets and auralisation of audio {CNNs}},
  version = {VERSION},
  year    = {2026}
}
"""


def cite() -> str:
    """BibTeX entries of what to cite: the two papers with the methods, and this package.

    Returns
    -------
    str
        Of the auralisation (Choi, Fazekas and Sandler 2016), the deconvnet (Zeiler and Fergus
        2014) and the installed version of fastdeconv.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> print(fd.cite().splitlines()[0])
    @article{choi2016explaining,
    """
    return _BIBTEX.replace("VERSION", __version__)
