// Text as a terminal shows it: colours, carriage return, backspace, erase in line, and the moves of the cursor that progress
// bars make. Knows nothing of the page. It keeps the first and the last lines and counts those between.

import Anser from "anser";

export interface Style {
  classes: string;
  color: string;
  background: string;
}

export interface Run {
  text: string;
  style: Style | null;
}

/** What is written over is kept by character, so that writing over it costs what is written, until `settle` makes runs of it. */
export interface Line {
  runs: Run[];
  cells: { text: string[]; styles: (Style | null)[] } | null;
  length: number;
  cut: number;
  changed: boolean;
}

export const HEAD = 400;
export const TAIL = 1600;
const LONGEST = 10_000; // characters of a line
const PIECES = 500; // runs of a line; the rest has the style of the last one
const MOST = 1_000_000; // characters of all lines at the end
const UNFINISHED = 4_096; // characters of an escape sequence that has not come to its end

// ECMA-48: CSI, OSC and other strings, shorter escapes. `PENDING`: the beginning of one, at the end of a piece of text.
const ESCAPE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]+[0-~]|[0-Z\\`-~])/y;
const PENDING = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]+)?$/;
const PLAIN = /[^\x00-\x08\x0a-\x1f\x7f]+/y;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/;

export class Screen {
  readonly head: Line[] = [];
  tail: Line[] = [];
  omitted = 0;
  private characters = 0;
  private row = 0; // of tail, or of head while that has room
  private column = 0;
  private pending = "";
  private style: Style | null = null;
  private readonly colours = new Anser();

  constructor() {
    this.head.push(line());
  }

  write(text: string): void {
    text = this.pending + text;
    this.pending = "";
    const cut = text.length > 0 ? PENDING.exec(text.slice(-UNFINISHED)) : null;
    if (cut !== null) {
      this.pending = cut[0];
      text = text.slice(0, text.length - cut[0].length);
    }
    if (!CONTROL.test(text)) {
      this.plain(text);
    } else {
      this.controlled(text);
    }
    this.bound();
  }

  private get lines(): Line[] {
    return this.tail.length > 0 ? this.tail : this.head;
  }

  private plain(text: string): void {
    let from = 0;
    for (;;) {
      const end = text.indexOf("\n", from);
      if (end < 0) break;
      if (end > from) this.put(text.slice(from, end));
      this.down();
      this.column = 0;
      from = end + 1;
    }
    if (from < text.length) this.put(from === 0 ? text : text.slice(from));
  }

  private controlled(text: string): void {
    let at = 0;
    while (at < text.length) {
      PLAIN.lastIndex = at;
      const plain = PLAIN.exec(text);
      if (plain !== null) {
        this.put(plain[0]);
        at = PLAIN.lastIndex;
        continue;
      }
      const character = text[at];
      if (character === "\x1b") {
        ESCAPE.lastIndex = at;
        const escape = ESCAPE.exec(text);
        if (escape !== null) this.escape(escape[2], escape[1] ?? "");
        at = escape === null ? at + 1 : ESCAPE.lastIndex;
        continue;
      }
      if (character === "\n") {
        this.down();
        this.column = 0;
      } else if (character === "\r") {
        this.column = 0;
      } else if (character === "\b") {
        this.column = Math.max(0, this.column - 1);
      }
      at += 1;
    }
  }

  private escape(final: string | undefined, parameters: string): void {
    const number = /^\d{1,5}$/.test(parameters) ? Math.min(Number(parameters), 1000) : null;
    const current = this.lines[this.row];
    if (current === undefined) return;
    if (final === "m") {
      this.colour(parameters);
    } else if (final === "K") {
      if (number === 1) overwrite(current, 0, " ".repeat(Math.min(this.column, current.length)), null);
      else truncate(current, number === 2 ? 0 : this.column);
    } else if (final === "A" || final === "F") {
      this.row = Math.max(0, this.row - (number || 1));
    } else if (final === "B" || final === "E") {
      this.row = Math.min(this.lines.length - 1, this.row + (number || 1));
    }
    if (final === "E" || final === "F") this.column = 0;
  }

  private colour(parameters: string): void {
    // An empty parameter is 0: reset (ECMA-48, 8.3.117).
    const found = this.colours.processChunkJson(`${parameters || "0"}mx`, { json: true, use_classes: true }, true);
    // Each once: the library's own list of them grows with every repetition.
    found.decorations.splice(0, Infinity, ...new Set(found.decorations));
    const classes = found.decorations.map((name) => `ansi-${name}`);
    const style: Style = { classes: "", color: "", background: "" };
    if (found.fg) style.color = colourOf(found.fg, found.fg_truecolor, classes, "fg");
    if (found.bg) style.background = colourOf(found.bg, found.bg_truecolor, classes, "bg");
    style.classes = classes.join(" ");
    this.style = style.classes || style.color || style.background ? style : null;
  }

  private put(text: string): void {
    const current = this.lines[this.row];
    if (current === undefined) return;
    if (this.column > current.length) overwrite(current, current.length, " ".repeat(Math.min(LONGEST, this.column) - current.length), null);
    const room = LONGEST - this.column;
    if (text.length > room) {
      current.cut += text.length - Math.max(0, room);
      current.changed = true;
      text = text.slice(0, Math.max(0, room));
    }
    const before = current.length;
    overwrite(current, this.column, text, this.style);
    this.characters += current.length - before;
    this.column += text.length;
  }

  private down(): void {
    this.row += 1;
    const lines = this.lines;
    if (this.row < lines.length) return;
    if (lines === this.head && this.head.length >= HEAD) {
      this.tail.push(line());
      this.row = 0;
      this.characters = 0;
    } else {
      lines.push(line());
    }
    if (this.tail.length > 2 * TAIL) this.forget(this.tail.length - TAIL);
  }

  private bound(): void {
    if (this.tail.length > TAIL) this.forget(this.tail.length - TAIL);
    while (this.tail.length > 1 && this.characters > MOST) this.forget(Math.ceil(this.tail.length / 4));
  }

  private forget(count: number): void {
    const gone = this.tail.splice(0, Math.min(count, this.tail.length - 1));
    this.omitted += gone.length;
    for (const each of gone) this.characters -= each.length;
    this.row = Math.max(0, this.row - gone.length);
  }
}

function line(): Line {
  return { runs: [], cells: null, length: 0, cut: 0, changed: true };
}

/** Its runs are what it shows. */
export function settle(line: Line): void {
  if (line.cells === null) return;
  const { text, styles } = line.cells;
  line.cells = null;
  line.runs = [];
  let from = 0;
  for (let at = 1; at <= text.length; at++) {
    if (at < text.length && (styles[at] === styles[from] || line.runs.length === PIECES - 1)) continue;
    line.runs.push({ text: text.slice(from, at).join(""), style: styles[from] ?? null });
    from = at;
  }
}

function colourOf(name: string, rgb: string, classes: string[], ground: "fg" | "bg"): string {
  if (name === "ansi-truecolor") return `rgb(${rgb})`;
  const palette = /^ansi-palette-(\d+)$/.exec(name);
  if (palette === null) {
    classes.push(`${name}-${ground}`);
    return "";
  }
  const index = Number(palette[1]);
  if (index >= 232) return `rgb(${Array(3).fill(8 + (index - 232) * 10).join(",")})`;
  const level = (step: number): number => (step === 0 ? 0 : 55 + step * 40);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))},${level(Math.floor(cube / 6) % 6)},${level(cube % 6)})`;
}

function truncate(line: Line, length: number): void {
  if (length >= line.length) return;
  const { text, styles } = cells(line);
  text.length = styles.length = length;
  line.length = length;
  line.changed = true;
}

function overwrite(line: Line, at: number, text: string, style: Style | null): void {
  if (text === "") return;
  line.changed = true;
  if (at === line.length && line.cells === null) {
    const last = line.runs[line.runs.length - 1];
    if (last !== undefined && (last.style === style || line.runs.length >= PIECES)) last.text += text;
    else line.runs.push({ text, style });
  } else {
    const { text: characters, styles } = cells(line);
    for (let index = 0; index < text.length; index++) {
      characters[at + index] = text[index] ?? "";
      styles[at + index] = style;
    }
  }
  line.length = Math.max(line.length, at + text.length);
}

function cells(line: Line): { text: string[]; styles: (Style | null)[] } {
  if (line.cells === null) {
    line.cells = { text: [], styles: [] };
    for (const { text, style } of line.runs) {
      for (let index = 0; index < text.length; index++) {
        line.cells.text.push(text[index] ?? "");
        line.cells.styles.push(style);
      }
    }
  }
  return line.cells;
}
