// Vega and Vega-Lite specifications. Data by URL cannot be had: the frame has no network.

import embed from "vega-embed";

globalThis.show = async (value, root, dark) => {
  const { mode, spec } = value as { mode: "vega" | "vega-lite"; spec: object };
  const theme = dark ? { theme: "dark" as const } : {};
  await embed(root, spec as Parameters<typeof embed>[1], { mode, actions: false, renderer: "svg", config: { background: "transparent" }, ...theme });
};
