declare module "plotly.js-dist-min" {
  const Plotly: {
    newPlot(root: HTMLElement, data: unknown, layout: unknown, config: unknown): Promise<unknown>;
    addFrames(root: HTMLElement, frames: unknown): Promise<unknown>;
  };
  export default Plotly;
}
declare module "katex-style" {
  const style: string;
  export default style;
}
/** What a library of the frame defines: it shows a value in the element, or gives HTML that does. */
declare var show: (value: unknown, root: HTMLElement, dark: boolean) => unknown;
