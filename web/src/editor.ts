// The cell that is being written (CodeMirror), and code as it was run.

import { autocompletion, closeBrackets, closeBracketsKeymap, completeAnyWord } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { python, pythonLanguage } from "@codemirror/lang-python";
import { bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState, Prec } from "@codemirror/state";
import { drawSelection, EditorView, keymap, placeholder } from "@codemirror/view";
import { classHighlighter, highlightCode } from "@lezer/highlight";
import { h } from "./dom";

const LONGEST = 100_000; // characters of code that are coloured

export class Editor {
  private readonly view: EditorView;
  private readonly past: string[] = [];
  private at = 0;
  private draft = "";

  constructor(parent: HTMLElement, run: (code: string) => void, stop: () => void, changed: (code: string) => void) {
    const submit = (): boolean => {
      const code = this.code;
      if (code.trim() !== "") run(code);
      return true;
    };
    const keys = [
      { key: "Shift-Enter", run: submit },
      { key: "Mod-Enter", run: submit },
      { key: "Ctrl-Enter", run: submit },
      { key: "Alt-ArrowUp", run: () => this.recall(-1) },
      { key: "Alt-ArrowDown", run: () => this.recall(1) },
      { key: "Ctrl-.", run: () => (stop(), true) },
    ];
    this.view = new EditorView({
      parent,
      state: EditorState.create({
        extensions: [
          // Its style sheet, the only one that a script of ours makes.
          EditorView.cspNonce.of(document.querySelector<HTMLMetaElement>("meta[name=style-nonce]")?.content ?? ""),
          Prec.highest(keymap.of(keys)),
          history(),
          drawSelection(),
          indentOnInput(),
          indentUnit.of("    "),
          bracketMatching(),
          closeBrackets(),
          python(),
          syntaxHighlighting(classHighlighter),
          autocompletion({ activateOnTyping: false }),
          EditorState.languageData.of(() => [{ autocomplete: completeAnyWord }]),
          placeholder("Write Python, then Shift+Enter"),
          EditorView.lineWrapping,
          EditorView.updateListener.of((update) => {
            if (update.docChanged) changed(update.state.doc.toString());
          }),
          EditorView.contentAttributes.of({ "aria-label": "Code. Escape, then Tab leaves the editor", "aria-multiline": "true" }),
          keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, indentWithTab]),
        ],
      }),
    });
  }

  get code(): string {
    return this.view.state.doc.toString();
  }

  set code(text: string) {
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: text }, selection: { anchor: text.length } });
  }

  focus(): void {
    this.view.focus();
  }

  /** The code was run: the editor is empty again. */
  done(code: string): void {
    if (this.past.at(-1) !== code) this.past.push(code);
    if (this.past.length > 200) this.past.shift();
    this.at = this.past.length;
    this.code = "";
  }

  /** Replaces what can be recalled: another session is shown. */
  remember(codes: string[]): void {
    this.past.splice(0, Infinity, ...codes);
    this.at = this.past.length;
  }

  private recall(step: number): boolean {
    const to = this.at + step;
    if (to < 0 || to > this.past.length) return true;
    if (this.at === this.past.length) this.draft = this.code;
    this.at = to;
    this.code = this.past[to] ?? this.draft;
    return true;
  }
}

/** Code that cannot be changed, coloured. */
export function coloured(code: string): HTMLPreElement {
  const pre = h("pre", { class: "code", tabindex: "0", "aria-label": "code" });
  if (code.length > LONGEST) {
    pre.append(code.slice(0, LONGEST), h("span", { class: "note" }, `\n… ${code.length - LONGEST} characters more`));
    return pre;
  }
  highlightCode(
    code,
    pythonLanguage.parser.parse(code),
    classHighlighter,
    (text, classes) => pre.append(classes === "" ? text : h("span", { class: classes }, text)),
    () => pre.append("\n"),
  );
  return pre;
}
