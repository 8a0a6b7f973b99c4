// Markdown with HTML and mathematics; and LaTeX alone.

import katex from "katex";
import style from "katex-style";
import MarkdownIt from "markdown-it";

const sheet = document.createElement("style");
sheet.textContent = style;
document.head.append(sheet);

const markdown = new MarkdownIt({ html: true, linkify: true });

function mathematics(text: string, displayMode: boolean): string {
  return katex.renderToString(text, { displayMode, throwOnError: false, maxExpand: 1000, maxSize: 100 });
}

// $…$ as in notebooks: no blank inside the dollars, no digit after the last one.
const INLINE = /\$(?!\s)((?:\\[^]|[^$\\])+?)(?<!\s)\$(?!\d)/y;
const DISPLAY = /\$\$([^]+?)\$\$|\\begin\{([a-zA-Z]+\*?)\}[^]*?\\end\{\2\}/y;

markdown.inline.ruler.before("escape", "mathematics", (state, silent) => {
  for (const pattern of [DISPLAY, INLINE]) {
    pattern.lastIndex = state.pos;
    const found = pattern.exec(state.src);
    if (found === null) continue;
    if (!silent) {
      const token = state.push("mathematics", "", 0);
      token.content = found[1] ?? found[0];
      token.meta = { display: pattern === DISPLAY };
    }
    state.pos = pattern.lastIndex;
    return true;
  }
  return false;
});
markdown.block.ruler.before("paragraph", "mathematics", (state, start, _end, silent) => {
  const from = state.bMarks[start]! + state.tShift[start]!;
  if (!state.src.startsWith("$$", from) && !state.src.startsWith("\\begin{", from)) return false;
  DISPLAY.lastIndex = from;
  const found = DISPLAY.exec(state.src);
  if (found === null) return false;
  let line = start;
  while (state.eMarks[line]! < DISPLAY.lastIndex) line += 1;
  if (state.src.slice(DISPLAY.lastIndex, state.eMarks[line]).trim() !== "") return false;
  if (silent) return true;
  const token = state.push("mathematics", "", 0);
  token.content = found[1] ?? found[0];
  token.meta = { display: true };
  state.line = line + 1;
  return true;
}, { alt: ["paragraph", "reference", "blockquote", "list"] });
markdown.renderer.rules["mathematics"] = (tokens, index) => mathematics(tokens[index]!.content, tokens[index]!.meta?.["display"] === true);

globalThis.show = (value) => {
  const { kind, text } = value as { kind: "markdown" | "latex"; text: string };
  if (kind === "markdown") return markdown.render(text);
  // What IPython calls LaTeX: mathematics between dollars, or an environment; else a text with such in it.
  const whole = /^\s*(?:\$\$([^]*)\$\$|\$([^$]*)\$|\\\[([^]*)\\\]|(\\begin\{[^]*))\s*$/.exec(text);
  const inside = whole === null ? null : (whole[1] ?? whole[2] ?? whole[3] ?? whole[4] ?? "");
  return inside === null ? markdown.render(text) : mathematics(inside.replace(/^\\displaystyle/, ""), true);
};
