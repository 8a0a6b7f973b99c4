"""Pandas and matplotlib."""

from __future__ import annotations

from typing import Final

from tests.differential.cells.shape import cell, one, several, topic

FRAME: Final = "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2, 3], 'b': [1.5, None, -2.25], 'c': list('xyz')})\n"
PLOT: Final = "import matplotlib.pyplot as plt\n"

PANDAS = topic(
    "pandas",
    one("a frame", FRAME + "df"),
    one("a frame displayed", FRAME + "display(df, df.T)\nprint(df)"),
    one("describe", FRAME + "df.describe()"),
    one("info", FRAME + "df.info()", mask=(r"memory usage: .*",)),
    one("a series and an index", FRAME + "display(df['a'], df.index)\ndf.dtypes"),
    one("a large frame", "import pandas as pd\npd.DataFrame({f'c{i}': range(200) for i in range(40)})"),
    several(
        "options",
        FRAME + "pd.set_option('display.max_rows', 2)\ndf",
        "pd.reset_option('display.max_rows')\nwith pd.option_context('display.precision', 1): display(df)",
        "pd.get_option('display.notebook_repr_html'), pd.get_option('display.max_columns'), pd.get_option('display.width')",
    ),
    one("a style", FRAME + "df.style.set_uuid('u').highlight_max(subset=['a'])"),
    one("groups", FRAME + "df.groupby('c').sum()"),
    one("an error", FRAME + "df['no such column']"),
    one("a warning", "import pandas as pd\npd.to_datetime(['1/2/2026', '13/2/2026'], errors='coerce')"),
    one(
        "a file",
        FRAME + "df.to_csv('frame.csv', index=False)\nprint(open('frame.csv').read())\npd.read_csv('frame.csv')",
    ),
    one("in a list", FRAME + "[df, df['a']]"),
    one("dates", "import pandas as pd\npd.date_range('2026-01-01', periods=3).to_frame(name='d')"),
    one("an empty frame", "import pandas as pd\npd.DataFrame()"),
)

MATPLOTLIB = topic(
    "matplotlib",
    one("a plot", PLOT + "plt.plot([1, 3, 2]);"),
    one("a plot and its value", PLOT + "plt.plot([1, 3, 2])"),
    one("a plot and a print", PLOT + "print('before')\nplt.plot([1, 2])\nprint('after')\n'value'"),
    one("two figures", PLOT + "plt.figure()\nplt.plot([1])\nplt.figure()\nplt.plot([2]);"),
    one("shown twice", PLOT + "plt.plot([1, 2])\nplt.show()\nprint('between')\nplt.plot([2, 1])\nplt.show()"),
    one("show without a figure", PLOT + "plt.show()"),
    one("a figure as a value", PLOT + "fig, ax = plt.subplots(figsize=(2, 1))\nax.plot([1, 2])\nfig"),
    one("a closed figure as a value", PLOT + "fig, ax = plt.subplots(figsize=(2, 1))\nplt.close(fig)\nfig"),
    one("a figure displayed", PLOT + "fig, ax = plt.subplots(figsize=(2, 1))\ndisplay(fig)\nplt.close()"),
    one(
        "a grid of plots",
        PLOT
        + "fig, axs = plt.subplots(2, 2, figsize=(3, 3))\nfor i, ax in enumerate(axs.flat): ax.bar(range(3), range(i, i + 3))\nfig.suptitle('grid')\nplt.tight_layout()",
    ),
    one(
        "kinds of plots",
        PLOT
        + "import numpy as np\nrng = np.random.default_rng(1)\nfig, axs = plt.subplots(1, 4, figsize=(8, 2))\naxs[0].hist(rng.normal(size=100)); axs[1].imshow(rng.random((8, 8))); axs[2].scatter(*rng.random((2, 20))); axs[3].pie([1, 2]);",
    ),
    one(
        "saved to a file",
        PLOT
        + "fig = plt.figure(figsize=(2, 1))\nplt.plot([1, 2])\nplt.savefig('plot.png', dpi=50)\nplt.close()\nimport os\nos.path.getsize('plot.png') > 100",
    ),
    several("over two cells", PLOT + "plt.plot([1, 2])", "plt.plot([2, 1])", "plt.get_fignums()"),
    several(
        "kept open",
        "%config InlineBackend.close_figures = False",
        PLOT + "fig = plt.figure(figsize=(1, 1))\nplt.plot([1]);",
        "plt.title('later');",
        "plt.close('all')\n%config InlineBackend.close_figures = True",
    ),
    one("an error after a plot", PLOT + "plt.plot([1, 2])\n1 / 0"),
    one("an error in a plot", PLOT + "plt.plot([1, 2], [1, 2, 3])"),
    several(
        "for sharp screens",
        "%config InlineBackend.figure_format = 'retina'",
        PLOT + "plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
        "%config InlineBackend.figure_formats = {'png', 'jpeg'}",
        "plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
        "%config InlineBackend.figure_format = 'png'",
    ),
    several(
        "as a drawing",
        "%config InlineBackend.figure_formats = ['svg']\nimport matplotlib\nmatplotlib.rcParams['svg.hashsalt'] = 'same'",
        cell(PLOT + "plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);", mask=(r"<dc:date>.*?</dc:date>",)),
        "%config InlineBackend.figure_formats = ['png']\nmatplotlib.rcParams['svg.hashsalt'] = None",
    ),
    several(
        "options of the print",
        "%config InlineBackend.print_figure_kwargs = {'bbox_inches': None, 'facecolor': 'red'}",
        PLOT + "plt.figure(figsize=(1, 1))\nplt.plot([1, 2]);",
        "%config InlineBackend.print_figure_kwargs = {'bbox_inches': 'tight'}",
    ),
    several(
        "the backend",
        "import matplotlib\nmatplotlib.get_backend()",
        PLOT + "plt.get_backend(), plt.get_fignums()",
        "%matplotlib inline",
        "%matplotlib --list",
        "%matplotlib no_such_backend",
        "import os\nos.environ.get('MPLBACKEND')",
        fresh=True,
    ),
    several(
        "asked for before the import",
        "%matplotlib inline",
        PLOT + "plt.plot([1, 2]);",
        "import matplotlib\nmatplotlib.get_backend()",
        "plt.get_fignums()",
        fresh=True,
    ),
    several(
        "drawn by the agg backend",
        "import matplotlib\nmatplotlib.use('agg')\n" + PLOT + "plt.plot([1, 2])\nplt.show()",
        "plt.get_fignums()",
        "%matplotlib inline",
    ),
    several(
        "the settings",
        "import matplotlib, json\n"
        + PLOT
        + "print(json.dumps({k: repr(v) for k, v in matplotlib.rcParams.items() if k != 'backend'}, indent=0, sort_keys=True))",
    ),
    several(
        "settings of the inline backend",
        "%config InlineBackend",
        "from matplotlib_inline.config import InlineBackend\nInlineBackend.instance().figure_formats, InlineBackend.instance().rc",
    ),
    one(
        "settings in a block",
        PLOT
        + "with plt.rc_context({'figure.figsize': (1, 1), 'figure.dpi': 60}): plt.plot([1]); plt.show()\nplt.rcParams['figure.figsize'], plt.rcParams['figure.dpi']",
    ),
    one(
        "a style",
        PLOT + "with plt.style.context('ggplot'):\n    plt.figure(figsize=(1, 1)); plt.plot([1, 2]); plt.show()",
    ),
    several(
        "a figure of a thread",
        PLOT + "plt.plot([1])",
        "import threading\nfrom matplotlib.figure import Figure\nfig = Figure(figsize=(1, 1))\nt = threading.Thread(target=lambda: fig.subplots().plot([1, 2]))\nt.start(); t.join()\nfig",
    ),
    one("a plot of pandas", "import pandas as pd\npd.DataFrame({'a': [1, 2, 3]}).plot(figsize=(2, 1))"),
    one(
        "interactive mode",
        PLOT + "plt.ioff()\nplt.plot([1, 2])\nplt.ion()\nplt.show()\nplt.isinteractive()",
    ),
    one("a figure that is closed", PLOT + "plt.figure(); plt.close()\nplt.figure(figsize=(1, 1)); plt.close('all')"),
    one(
        "cleared between",
        PLOT
        + "from IPython.display import clear_output\nfor i in range(3):\n    clear_output(wait=True)\n    plt.figure(figsize=(1, 1)); plt.plot([i]); plt.show()",
    ),
    one(
        "a figure updated",
        PLOT
        + "fig, ax = plt.subplots(figsize=(1, 1))\nh = display(fig, display_id='figure')\nax.plot([1, 2])\nh.update(fig)\nplt.close()",
    ),
    one("many figures warn", PLOT + "for _ in range(22): plt.figure(figsize=(0.2, 0.2))\nplt.close('all')"),
    several("text that the font lacks", PLOT + "plt.figure(figsize=(1, 1))\nplt.title('漢');"),
)
