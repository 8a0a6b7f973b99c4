// application/vnd.plotly.v1+json; and HTML that expects Plotly to be there.

import Plotly from "plotly.js-dist-min";

interface Figure {
  data?: unknown;
  layout?: Record<string, unknown>;
  config?: Record<string, unknown>;
  frames?: unknown[];
}

Object.assign(globalThis, { Plotly });
globalThis.show = async (value, root, dark) => {
  const { data = [], layout = {}, config = {}, frames = [] } = value as Figure;
  const clear = "rgba(0,0,0,0)";
  const font = (layout["font"] ?? {}) as { color?: unknown };
  // Colours that the figure names belong together: then none is ours.
  const own = "paper_bgcolor" in layout || "plot_bgcolor" in layout || "color" in font;
  const dressed = own ? {} : dark ? { paper_bgcolor: clear, plot_bgcolor: clear, font: { ...font, color: "#dde3ea" } } : { paper_bgcolor: clear };
  const height = typeof layout["height"] === "number" ? layout["height"] : 420;
  root.style.height = `${height}px`;
  await Plotly.newPlot(root, data, { ...layout, ...dressed }, { responsive: true, ...config, displaylogo: false });
  if (frames.length > 0) await Plotly.addFrames(root, frames);
};
