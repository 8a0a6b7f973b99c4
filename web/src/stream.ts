// Standard output or standard error as text on the page. Text of user code becomes text nodes and nothing else.

import { h } from "./dom";
import { HEAD, Screen, settle, type Line, type Run } from "./screen";

const PIECES = 20_000; // coloured pieces at a time; lines beyond them are plain

export class Stream {
  readonly element: HTMLPreElement;
  private readonly screen = new Screen();
  private readonly shown = new Map<Line, HTMLSpanElement>();
  private pieces = 0;
  private readonly head = h("span");
  private readonly note = h("span", { class: "note", hidden: true });
  private readonly tail = h("span");
  private drawing = false;

  constructor(readonly name: "stdout" | "stderr" | "error" | "plain") {
    this.element = h("pre", { class: `text ${name}` }, this.head, this.note, this.tail);
    if (name === "stderr" || name === "error") this.element.setAttribute("aria-label", name === "stderr" ? "standard error" : "error");
  }

  write(text: string): void {
    this.screen.write(text);
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  private draw(): void {
    const { head, tail, omitted } = this.screen;
    const box = this.element;
    const sticks = (this.name === "stdout" || this.name === "stderr") && box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const there = new Set([...head, ...tail]);
    for (const [line, span] of this.shown) {
      if (there.has(line)) continue;
      this.pieces -= span.childElementCount;
      span.remove();
      this.shown.delete(line);
    }
    this.lines(head, this.head, tail.length > 0);
    this.lines(tail, this.tail, false);
    this.note.hidden = omitted === 0;
    this.note.textContent = omitted === 0 ? "" : `… ${omitted.toLocaleString("en")} lines are not shown here: the first ${HEAD} and the last ones are …\n`;
    if (sticks) box.scrollTop = box.scrollHeight;
  }

  private lines(lines: Line[], parent: HTMLElement, more: boolean): void {
    const last = lines.length - 1;
    lines.forEach((line, index) => {
      const ends = index < last || more;
      let span = this.shown.get(line);
      if (span === undefined) {
        span = h("span");
        parent.append(span);
        this.shown.set(line, span);
      } else if (!line.changed && ends === (span.dataset["ends"] === "")) {
        return;
      }
      line.changed = false;
      settle(line);
      this.pieces -= span.childElementCount;
      const plain = this.pieces + line.runs.length > PIECES;
      span.replaceChildren(...(plain ? [line.runs.map(({ text }) => text).join("")] : line.runs.map(coloured)));
      if (line.cut > 0) span.append(h("span", { class: "note" }, ` … ${line.cut.toLocaleString("en")} characters of this line are not shown`));
      if (ends) span.append("\n");
      span.toggleAttribute("data-ends", ends);
      this.pieces += span.childElementCount;
    });
  }
}

function coloured({ text, style }: Run): Node | string {
  if (style === null) return text;
  const run = h("span", { class: style.classes }, text);
  run.style.color = style.color;
  run.style.backgroundColor = style.background;
  return run;
}
