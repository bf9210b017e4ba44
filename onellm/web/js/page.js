// What the page does by itself: it passes clicks on buttons inside HTML to Python, takes files that are dropped or
// pasted anywhere, and knows the keys, the language and the light. Loaded before the page's parts.
window.onellm = (() => {
  "use strict";
  const acts = new Map();
  const $ = (selector, root = document) => root.querySelector(selector);

  // Storage may be closed to us, in a frame of another site for example.
  const memory = {};
  const remember = (key, value) => {
    memory[key] = value;
    try { localStorage.setItem(`onellm-${key}`, value); } catch { /* kept for this page alone */ }
  };
  const remembered = (key) => {
    try { return memory[key] ?? localStorage.getItem(`onellm-${key}`); } catch { return memory[key] ?? null; }
  };

  // ---- clicks -----------------------------------------------------------------------------------------------------

  /** Let the events `names` be triggered through a component's `trigger`. */
  const connect = (trigger, names) => {
    names.forEach((name) => acts.set(name, trigger));
    speak(); // Gradio has set the browser's language meanwhile
  };
  const act = (name, data = {}) => acts.get(name)?.(name, data);

  const chosenIn = (form) =>
    Object.fromEntries([...form.querySelectorAll("input:checked, select")].map((input) => [input.name, input.value]));

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-act], [data-example]");
    if (!button) return;
    const data = { ...button.dataset };
    if (data.example) return act("example", { example: Number(data.example) });
    if (data.act === "copy") return copy(button);
    if (data.act === "dark") return setDark(!document.body.classList.contains("dark"));
    if (data.act === "beside") fileInput("#beside")?.click(); // now, while the click still counts as the person's
    if (data.act === "language") { remember("language", data.language); speak(); }
    const form = button.closest("[data-form]");
    act(data.act, form ? { ...data, ...chosenIn(form) } : data);
  });

  /** Copy the words of the answer the button stands below. */
  const copy = async (button) => {
    const text = [...button.closest(".message-row").querySelectorAll(".message-content")]
      .map((part) => part.innerText.trim()).join("\n");
    await navigator.clipboard.writeText(text).catch(() => {
      // Clipboards are for secure pages only; a selection works everywhere.
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    });
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };

  // ---- files ------------------------------------------------------------------------------------------------------

  /** Find the file input of an upload button: Gradio puts it before the button. */
  const fileInput = (selector) => {
    const input = $(selector)?.previousElementSibling;
    return input?.matches("input[type=file]") ? input : null;
  };

  /** Give files to the widget under `target`, or to the one that recognises what it is given. */
  const give = (files, target) => {
    const card = target?.closest?.(".card");
    const input = fileInput(card ? `#add-${card.id.replace("card-", "")}` : "#any");
    if (!input || !files.length) return;
    const list = new DataTransfer();
    [...files].forEach((file) => list.items.add(file));
    input.files = list.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };

  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let inside = 0; // dragenter and dragleave come for every element on the way
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragenter", (event) => { if (carriesFiles(event)) { inside += 1; dragging(true); } }, true);
  addEventListener("dragleave", () => { inside = Math.max(0, inside - 1); dragging(inside > 0); }, true);
  addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); }, true);
  addEventListener("drop", (event) => {
    inside = 0;
    dragging(false);
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    give(event.dataTransfer.files, event.target);
  }, true);
  addEventListener("paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    if (!files.length) return;
    event.preventDefault();
    give(files, null);
  }, true);

  // A file is on its way from the moment it is chosen until Python shows it: until then nothing can be asked.
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (input.type !== "file" || !input.files?.length || !input.closest("#left, #tray")) return;
    const attached = $("#attached");
    const row = Object.assign(document.createElement("div"), { className: "reading", role: "status" });
    row.textContent = [...input.files].map((file) => file.name).join(", ") + " …";
    attached?.append(row);
    const gone = () => { row.remove(); watcher.disconnect(); clearTimeout(late); };
    const watcher = new MutationObserver((changes) => {
      if (changes.some((change) => [...change.addedNodes].some((node) => node !== row))) gone();
    });
    if (attached) watcher.observe(attached, { childList: true, subtree: true });
    const toasts = new MutationObserver(() => { if ($(".toast-body")) { gone(); toasts.disconnect(); } });
    toasts.observe(document.body, { childList: true, subtree: true });
    const late = setTimeout(gone, 60000);
  }, true);
  const onItsWay = () => $("#attached .reading") !== null;
  const hold = (event) => { if (onItsWay()) { event.preventDefault(); event.stopImmediatePropagation(); } };
  document.addEventListener("click", (event) => { if (event.target.closest?.("#send")) hold(event); }, true);

  // ---- keys -------------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // a Chinese word is being chosen
    if (event.key === "Enter" && !event.shiftKey && event.target.closest?.("#message")) hold(event);
    if (event.key === "Escape") {
      const stop = [$("#stop"), $('[data-act="end_compare"]')].find((button) => button?.offsetParent);
      stop?.click();
    }
  }, true);

  // ---- language and light -----------------------------------------------------------------------------------------

  const language = () => remembered("language") ?? navigator.language ?? "en";
  const speak = () => { document.documentElement.lang = language().startsWith("zh") ? "zh" : "en"; };
  const setDark = (dark) => {
    remember("light", dark ? "dark" : "light");
    document.body.classList.toggle("dark", dark);
  };

  /** Start a download. */
  const download = (url) => {
    if (!url) return;
    const link = Object.assign(document.createElement("a"), { href: url, download: "" });
    document.body.append(link);
    link.click();
    link.remove();
  };

  const begin = () => {
    speak();
    const light = remembered("light");
    if (light) document.body.classList.toggle("dark", light === "dark");
    if (!navigator.mediaDevices?.getUserMedia) document.body.classList.add("no-media");
  };
  if (document.body) begin(); else addEventListener("DOMContentLoaded", begin);

  return { connect, act, language, download };
})();
