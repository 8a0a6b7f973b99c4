// One MIME bundle on the page: which of its types is shown, and how. Pictures and text are shown by the page itself, all else
// in a sandboxed frame.

import { Problem, request } from "./api";
import { h, size } from "./dom";
import { Frame, type Library } from "./frames";
import type { Told } from "./frame/frame";
import { Stream } from "./stream";
import type { BlobName, Shown } from "./wire";

const LARGEST = 48_000_000; // bytes of a value that is shown

// In the order of preference.
const ORDER: RegExp[] = [
  /^application\/vnd\.plotly\.v1\+json$/,
  /^application\/vnd\.vegalite\.v\d+(\.\d+)*\+json$/,
  /^application\/vnd\.vega\.v\d+(\.\d+)*\+json$/,
  /^text\/html$/,
  /^text\/markdown$/,
  /^image\/svg\+xml$/,
  /^text\/latex$/,
  /^image\/(png|jpeg|gif|webp|bmp)$/,
  /^application\/javascript$/,
  /^text\/plain$/,
  /^application\/json$/,
];

function best(shown: Shown): string | null {
  const types = [...Object.keys(shown.data), ...Object.keys(shown.blobs ?? {})];
  for (const pattern of ORDER) {
    const found = types.find((type) => pattern.test(type));
    if (found !== undefined) return found;
  }
  return types.find((type) => type.startsWith("text/")) ?? types[0] ?? null;
}

export class Bundle {
  readonly element = h("div", { class: "bundle" });
  private frame: { frame: Frame; library: Library | null } | null = null;
  private address: string | null = null;
  private next: Shown | null = null;
  private busy = false;
  private closed = false;

  constructor(shown: Shown) {
    this.show(shown);
  }

  /** In the place of what is shown, which stays until this can be seen. Of what comes meanwhile the last one is next. */
  show(shown: Shown): void {
    this.next = shown;
    if (!this.busy) void this.work();
  }

  private async work(): Promise<void> {
    this.busy = true;
    while (this.next !== null && !this.closed) {
      const shown = this.next;
      this.next = null;
      await this.bring(shown);
    }
    this.busy = false;
  }

  private async bring(shown: Shown): Promise<void> {
    const type = best(shown);
    if (type === null) return this.put();
    let value = shown.data[type];
    const blob = value === undefined ? shown.blobs?.[type] : undefined;
    if (blob !== undefined) {
      if (blob.size > LARGEST) return this.put(h("p", { class: "note" }, `${type}, ${size(blob.size)}: too large to be shown here. The notebook has it.`));
      if (this.element.childElementCount === 0) this.element.append(h("p", { class: "note" }, `${size(blob.size)} …`));
      try {
        value = await fetched(blob);
      } catch {
        value = null;
      }
      if (this.closed) return;
      if (value === null) return this.put(h("p", { class: "note" }, `${type}, ${size(blob.size)}: could not be loaded.`));
    }
    await this.draw(type, value, shown);
  }

  close(): void {
    this.closed = true;
    this.put();
  }

  private async draw(type: string, value: unknown, shown: Shown): Promise<void> {
    if (type === "application/vnd.plotly.v1+json") return this.library("plotly", value);
    const vega = /^application\/vnd\.vega(lite)?\./.exec(type);
    if (vega !== null) return this.library("vega", { mode: vega[1] === undefined ? "vega" : "vega-lite", spec: value });
    if (type === "text/markdown" || type === "text/latex") {
      return this.library("markdown", { kind: type === "text/markdown" ? "markdown" : "latex", text: joined(value) });
    }
    if (type === "text/html") {
      const html = joined(value);
      // HTML of Plotly that leaves the library to be there already.
      const plotly = html.length < 3_000_000 && /\bPlotly\.(newPlot|react)\(/.test(html);
      return this.framed({ kind: "html", value: html, library: null, light: coloured(html) }, plotly ? "plotly" : null);
    }
    if (type === "image/svg+xml") return this.framed({ kind: "html", value: joined(value), library: null, light: true }, null);
    if (type === "application/javascript") return this.framed({ kind: "javascript", value: joined(value), library: null, light: false }, null);
    if (/^image\/(png|jpeg|gif|webp|bmp)$/.test(type)) return this.picture(type, value, shown);
    const text = new Stream("plain");
    text.write(typeof value === "string" || type.startsWith("text/") ? joined(value) : JSON.stringify(value, null, 2));
    this.put(text.element);
  }

  private library(library: Library, value: unknown): void {
    const layout = library === "plotly" ? (value as { layout?: Record<string, unknown> } | null)?.layout : undefined;
    const font = layout?.["font"] as { color?: unknown } | undefined;
    this.framed({ kind: "library", value, library: null, light: font?.color !== undefined && layout?.["paper_bgcolor"] === undefined }, library);
  }

  private framed(told: Told, library: Library | null): void {
    if (this.frame !== null && this.frame.library === library) {
      this.frame.frame.update(told);
      return;
    }
    const frame = new Frame(told, library);
    this.put(frame.element);
    this.frame = { frame, library };
  }

  private async picture(type: string, value: unknown, shown: Shown): Promise<void> {
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = value instanceof Uint8Array ? (value as Uint8Array<ArrayBuffer>) : ofBase64(joined(value));
    } catch {
      return this.put(h("p", { class: "note" }, `${type}: this is no picture.`));
    }
    const plain = shown.data["text/plain"];
    const image = h("img", { alt: typeof plain === "string" && plain !== "" ? plain.slice(0, 200) : "Picture" });
    const about = (shown.metadata?.[type] ?? {}) as { width?: unknown; height?: unknown };
    if (typeof about.width === "number") image.width = about.width;
    if (typeof about.height === "number") image.height = about.height;
    const address = URL.createObjectURL(new Blob([bytes], { type }));
    image.src = address;
    // The old one stays until then; what is no picture is put there broken, with its words.
    await image.decode().catch(() => undefined);
    if (this.closed) return URL.revokeObjectURL(address);
    this.put(image);
    this.address = address;
  }

  private put(...children: Node[]): void {
    this.frame?.frame.close();
    this.frame = null;
    if (this.address !== null) URL.revokeObjectURL(this.address);
    this.address = null;
    this.element.replaceChildren(...children);
  }
}

async function fetched(blob: BlobName): Promise<unknown> {
  const response = await patiently(`/v1/blobs/${blob.sha256}`);
  if (blob.encoding === "base64") return new Uint8Array(await response.arrayBuffer());
  return blob.encoding === "json" ? response.json() : response.text();
}

/** Asked again a few times where the service has too much to do. */
async function patiently(path: string): Promise<Response> {
  for (let tries = 1; ; tries++) {
    try {
      return await request(path);
    } catch (error) {
      const passing = error instanceof Problem ? error.status === 429 || error.status === 503 : error instanceof TypeError;
      if (!passing || tries === 6) throw error;
      const wait = error instanceof Problem && error.wait > 0 ? Math.min(10, error.wait) * 1000 : 250 * 2 ** tries;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** Whether HTML has colours of its own, which are made for a light ground. */
function coloured(html: string): boolean {
  return /<svg\b|\bcolor\s*[:=]|\bbackground(?:-color)?\s*:/i.test(html);
}

function ofBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Notebooks may hold a list of lines where the protocol has a string. */
function joined(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.join("");
  return JSON.stringify(value, null, 2);
}
