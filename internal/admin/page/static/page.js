// Keeps the page fresh: fetches it again and puts the new <main> in the old one's place. Nothing
// on the page depends on this script.
"use strict";
(() => {
  const main = document.getElementById("main");
  const pause = document.getElementById("pause");
  const stale = document.getElementById("stale");
  const pace = 1000 * Number(document.body.dataset.refresh || 1);
  let paused = false;

  const say = (text) => { if (stale.textContent !== text) stale.textContent = text; };

  // A focused element of the old page is found in the new one by its place among its like.
  const place = (root, el) => {
    const like = el.tagName.toLowerCase();
    return [like, Array.prototype.indexOf.call(root.querySelectorAll(like), el)];
  };

  const show = (html) => {
    const next = new DOMParser().parseFromString(html, "text/html");
    const fresh = next.getElementById("main");
    if (!fresh) return;
    const scrolls = Array.from(main.querySelectorAll(".scroll"), (el) => el.scrollLeft);
    const active = main !== document.activeElement && main.contains(document.activeElement) ? place(main, document.activeElement) : null;
    main.replaceChildren(...fresh.childNodes);
    document.title = next.title;
    main.querySelectorAll(".scroll").forEach((el, i) => { el.scrollLeft = scrolls[i] || 0; });
    if (active) {
      const el = main.querySelectorAll(active[0])[active[1]];
      if (el) el.focus({ preventScroll: true });
    }
  };

  const reading = () => {
    const s = document.getSelection();
    return s && !s.isCollapsed && main.contains(s.anchorNode);
  };

  const look = async () => {
    const began = performance.now();
    if (!paused && !document.hidden && !reading()) {
      try {
        const r = await fetch(location.href, { signal: AbortSignal.timeout(5000) });
        const html = await r.text();
        if (!paused) { show(html); say(""); }
      } catch {
        say("No reply from the daemon: what you see is old.");
      }
    }
    // A page that is heavy to make is made less often.
    setTimeout(look, Math.max(pace, 10 * (performance.now() - began)));
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Paused" : "Pause";
  });
  setTimeout(look, pace);
})();
