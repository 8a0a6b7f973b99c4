// Builds the page into the Python package. What the names of files are made of is their content, so that a browser may keep them.

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const source = join(here, "src");
const target = join(here, "..", "src", "cellrun", "service", "assets");
const common = { bundle: true, minify: true, write: false, target: "es2022", legalComments: "eof", logLevel: "warning" };

// KaTeX's style sheet with its fonts in it: the frame that shows mathematics cannot load any.
const katexStyle = {
  name: "katex-style",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^katex-style$/ }, () => ({ path: "katex-style", namespace: "katex-style" }));
    onLoad({ filter: /.*/, namespace: "katex-style" }, async () => {
      const folder = dirname(createRequire(import.meta.url).resolve("katex/dist/katex.min.css"));
      let style = await readFile(join(folder, "katex.min.css"), "utf8");
      style = style.replace(/,url\([^)]*\.(woff|ttf)\) format\("[a-z]+"\)/g, "");
      for (const [whole, path] of [...style.matchAll(/url\(([^)]*\.woff2)\)/g)]) {
        const font = await readFile(join(folder, path));
        style = style.replace(whole, `url(data:font/woff2;base64,${font.toString("base64")})`);
      }
      if (/url\((?!data:)/.test(style)) throw new Error("katex.min.css names a file that is not put into it");
      return { contents: style, loader: "text" };
    });
  },
};

async function bundled(entry, options = {}) {
  const { outputFiles } = await build({ ...common, entryPoints: [join(source, entry)], format: "iife", ...options });
  return outputFiles[0].text;
}

async function write(name, text) {
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 12);
  const full = name.replace(".", `-${hash}.`);
  await writeFile(join(target, full), text);
  return `/page/${full}`;
}

await mkdir(target, { recursive: true });
for (const name of await readdir(target)) await rm(join(target, name));

const libraries = {};
for (const name of ["markdown", "plotly", "vega"]) {
  libraries[name] = await write(`${name}.js`, await bundled(`frame/${name}.ts`, { plugins: [katexStyle] }));
}
const script = (await bundled("frame/frame.ts")).replaceAll("</script", "<\\/script");
const style = await bundled("frame/frame.css");
const frame = await write(
  "frame.html",
  `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Output</title><style>${style}</style></head><body><script>${script}</script></body></html>`,
);
const page = await bundled("page.ts", { define: { FRAME: JSON.stringify(frame), LIBRARIES: JSON.stringify(libraries) } });
const names = {
  script: await write("page.js", page),
  style: await write("page.css", await bundled("page.css")),
  icon: await write("icon.svg", await readFile(join(source, "icon.svg"), "utf8")),
};
// Last: where it is, all is there.
// @nonce@ stays: it is another one in each answer.
const html = await readFile(join(source, "index.html"), "utf8");
await writeFile(join(target, "index.html"), html.replace(/@(\w+)@/g, (whole, name) => names[name] ?? whole));
