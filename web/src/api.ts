// Requests to the service this page came from, and to no other. The key travels in a header, never in an address, and is
// kept in sessionStorage only: it goes with the tab.

const KEY = "cellrun-key";

/** Told by the service: problem details (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly wait: number,
  ) {
    super(detail);
  }
}

let asked: Promise<void> | null = null;
let ask: (wrong: boolean) => Promise<string> = () => Promise.reject(new Error("nobody can be asked for a key"));

/** `how`: asks whoever sits there; `wrong`: the last one was not taken. */
export function askForKeyBy(how: (wrong: boolean) => Promise<string>): void {
  ask = how;
}

export const key = {
  get: (): string | null => sessionStorage.getItem(KEY),
  forget: (): void => sessionStorage.removeItem(KEY),
};

interface Asked {
  method?: string;
  body?: unknown;
  file?: Blob;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The answer, once it is no refusal. Raises Problem, or TypeError where the service cannot be reached. */
export async function request(path: string, { method = "GET", body, file, headers = {}, signal }: Asked = {}): Promise<Response> {
  for (;;) {
    const used = key.get();
    const all: Record<string, string> = { ...headers };
    if (used !== null) all["Authorization"] = `Bearer ${used}`;
    if (body !== undefined) all["Content-Type"] = "application/json";
    const response = await fetch(path, {
      method,
      headers: all,
      body: file ?? (body === undefined ? null : JSON.stringify(body)),
      signal: signal ?? null,
      cache: "no-cache",
      credentials: "omit",
      redirect: "error",
    });
    if (response.ok) return response;
    if (response.status !== 401) throw await problemOf(response);
    await response.body?.cancel();
    if (key.get() === used) {
      key.forget();
      asked ??= ask(used !== null).then((given) => sessionStorage.setItem(KEY, given)).finally(() => (asked = null));
      await asked;
    }
    signal?.throwIfAborted();
  }
}

async function problemOf(response: Response): Promise<Problem> {
  const wait = Number(response.headers.get("Retry-After") ?? "0");
  try {
    const told = (await response.json()) as { code: string; detail: string };
    return new Problem(response.status, told.code, told.detail, wait);
  } catch {
    return new Problem(response.status, "internal", `the service answered ${response.status}`, wait);
  }
}

export async function json<T>(path: string, asked: Asked = {}): Promise<T> {
  const response = await request(path, asked);
  return (await response.json()) as T;
}

/** What a request failed with, in words. */
export function words(error: unknown): string {
  if (error instanceof Problem) return error.message;
  if (error instanceof TypeError) return "the service cannot be reached";
  return String(error);
}

export const sessionPath = (session: string): string => `/v1/sessions/${encodeURIComponent(session)}`;
export const filePath = (session: string, path: string): string =>
  `${sessionPath(session)}/files/${path.split("/").map(encodeURIComponent).join("/")}`;

/** Has the browser save what is at this address of ours. */
export async function save(path: string, name: string): Promise<void> {
  const response = await request(path);
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has taken hold of it by the next minute.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Lines of JSON of an answer, until it ends. An empty line is a sign of life; where there is none for `patience` milliseconds,
 * raises TypeError, as when the connection breaks. */
export async function* lines(response: Response, patience: number): AsyncGenerator<unknown[]> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest: string[] = [];
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), patience);
      if (done) return;
      const pieces = value.split("\n");
      if (pieces.length === 1) {
        rest.push(value);
        continue;
      }
      pieces[0] = rest.join("") + pieces[0];
      rest = [pieces.pop() ?? ""];
      yield pieces.filter((line) => line !== "").map((line) => JSON.parse(line) as unknown);
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

function within<T>(promise: Promise<T>, milliseconds: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new TypeError("the connection is silent")), milliseconds);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
