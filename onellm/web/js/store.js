// Conversations are kept in the browser, in IndexedDB, with their files: the server forgets uploads after an hour.
// A conversation is the record that Python makes (onellm/web/conversations.py); here only its paths matter.
(() => {
  "use strict";
  const MOST_KEPT = 100; // conversations
  const LARGEST_KEPT = 50e6; // bytes of a file that is kept with them
  const lists = new Set();

  // The conversation this page shows; a reload of the page comes back to it.
  let current = "";
  const show = (id) => {
    current = id;
    try { sessionStorage.setItem("onellm-current", id); } catch { /* no storage here */ }
  };
  const shown = () => {
    try { return sessionStorage.getItem("onellm-current") ?? ""; } catch { return ""; }
  };

  const wait = (request) =>
    new Promise((done, failed) => {
      request.onsuccess = () => done(request.result);
      request.onerror = () => failed(request.error);
    });
  let opened = null;
  const database = () => {
    if (!opened) {
      const request = indexedDB.open("onellm", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("conversations", { keyPath: "id" });
        request.result.createObjectStore("files"); // path -> blob
      };
      opened = wait(request);
    }
    return opened;
  };
  const store = async (name, mode = "readonly") => (await database()).transaction(name, mode).objectStore(name);

  const everyFile = (turn) => [...turn.files, ...(turn.made ?? [])]; // what was asked about, and what was answered
  const filesOf = (record) =>
    record.turns.flatMap(everyFile).flatMap((file) => [file.path, file.picture]).filter(Boolean);
  const link = (path) => `gradio_api/file=${encodeURIComponent(path)}`;

  /** Keep a conversation, JSON as Python sends it; "" is none. */
  const keep = async (text) => {
    show("");
    try {
      if (text) {
        const record = JSON.parse(text);
        show(record.id);
        record.kept = Date.now();
        await wait((await store("conversations", "readwrite")).put(record));
        await keepFiles(record);
        await sweep();
      }
    } catch (error) { // no storage here, or it is full: the conversation still lives on this page
      console.warn("The conversation could not be kept:", error);
    }
    render();
  };

  const keepFiles = async (record) => {
    for (const path of filesOf(record)) {
      if (await wait((await store("files")).count(path))) continue;
      const answer = await fetch(link(path));
      if (!answer.ok || Number(answer.headers.get("content-length")) > LARGEST_KEPT) continue;
      const blob = await answer.blob();
      await wait((await store("files", "readwrite")).put(blob, path));
    }
  };

  const all = async () => {
    const records = await wait((await store("conversations")).getAll());
    return records.sort((a, b) => b.kept - a.kept);
  };

  /** Drop the oldest conversations beyond the limit, and files that no conversation names. */
  const sweep = async () => {
    const records = await all();
    for (const record of records.slice(MOST_KEPT)) await wait((await store("conversations", "readwrite")).delete(record.id));
    const named = new Set(records.slice(0, MOST_KEPT).flatMap(filesOf));
    for (const path of await wait((await store("files")).getAllKeys()))
      if (!named.has(path)) await wait((await store("files", "readwrite")).delete(path));
  };

  /** Upload a kept file again where the server has forgotten it; return its path there, "" if it is lost. */
  const revive = async (path) => {
    if ((await fetch(link(path), { method: "HEAD" })).ok) return path;
    const blob = await wait((await store("files")).get(path));
    if (!blob) return "";
    const form = new FormData();
    form.append("files", blob, path.split("/").pop());
    const answer = await fetch("gradio_api/upload", { method: "POST", body: form });
    return answer.ok ? (await answer.json())[0] : "";
  };

  const open = async (id) => {
    const record = await wait((await store("conversations")).get(id));
    if (!record) return render();
    const paths = new Map();
    for (const path of new Set(filesOf(record))) {
      const revived = await revive(path);
      paths.set(path, revived);
      if (revived && revived !== path) { // the blob is named by the new path from now on
        const blob = await wait((await store("files")).get(path));
        await wait((await store("files", "readwrite")).put(blob, revived));
      }
    }
    for (const turn of record.turns)
      for (const file of turn.files) {
        file.path = paths.get(file.path) ?? "";
        file.picture = paths.get(file.picture) || null;
      }
    for (const turn of record.turns) for (const thing of turn.made ?? []) thing.path = paths.get(thing.path) ?? "";
    delete record.kept;
    onellm.act("open", { record: JSON.stringify(record) });
  };

  const remove = async (id) => {
    await wait((await store("conversations", "readwrite")).delete(id));
    await sweep();
    render();
  };

  /** Show the conversations in a component, now and whenever they change. */
  const list = (element) => {
    lists.add(element);
    render();
  };

  const render = async () => {
    let records = [];
    try { records = await all(); } catch { /* no storage here */ }
    for (const element of lists) {
      const target = element.querySelector(".history");
      if (!target) continue;
      const rows = records.map((record) => {
        const row = document.createElement("li");
        const opener = Object.assign(document.createElement("button"), { type: "button", className: "history-open" });
        const title = Object.assign(document.createElement("span"), { textContent: record.title });
        const when = Object.assign(document.createElement("small"), {
          textContent: new Date(record.kept).toLocaleString(onellm.language(), { dateStyle: "medium", timeStyle: "short" }),
        });
        opener.append(title, when);
        opener.addEventListener("click", () => open(record.id));
        if (record.id === current) opener.setAttribute("aria-current", "true");
        const cross = Object.assign(document.createElement("button"), { type: "button", className: "act", textContent: "×" });
        cross.setAttribute("aria-label", `${target.dataset.remove}: ${record.title}`);
        cross.addEventListener("click", () => remove(record.id));
        row.append(opener, cross);
        return row;
      });
      const empty = Object.assign(document.createElement("li"), { className: "hint", textContent: target.dataset.empty });
      target.replaceChildren(...(rows.length ? rows : [empty]));
    }
  };

  /** Come back to the conversation that a reload left; the page has its language, and may be used from here on. */
  const reopen = () => {
    document.body.dataset.opened = "";
    if (shown()) open(shown()).catch(() => show(""));
  };

  Object.assign(onellm, { keep, list, reopen });
})();
