/* Signalbox web chat. One script tag, no other resources, no markup made from text: all of it is built by DOM calls, so it
   works under a strict content security policy and with Trusted Types. Licensed under Apache-2.0. */
(() => {
  "use strict";
  const config = /*config*/ {};
  const script = document.currentScript;
  const home = script.src.replace(/\.js(?:[?#].*)?$/, "");
  const WORDS = {
    en: {
      title: "Chat with us", greeting: "Hello! How can we help?", open: "Open chat", close: "Close chat",
      write: "Your message", hint: "Enter sends, Shift and Enter begins a new line", send: "Send", you: "You", us: "Support",
      sending: "Sending…", sent: "Sent", seen: "Seen", failed: "Could not be sent", typing: "is typing…",
      lost: "No connection. What you write is sent as soon as it is back.", news: "New messages: ",
      closed: "Nobody is here right now. Leave your message and mail address, and we will answer by mail.",
      away: "We cannot be reached at the moment. Leave your message and mail address: it is sent as soon as there is a connection.",
      name: "Name (optional)", email: "Mail address", message: "Message", bad_email: "Please enter a mail address, such as ada@example.com.",
      bad_message: "Please write a message.", thanks: "Thank you. We will answer by mail.",
      kept: "Kept. It is sent as soon as there is a connection; please leave this page open or come back to it.",
      long: "Too long: at most {n} characters.", log: "Conversation",
    },
    tr: {
      title: "Bize yazın", greeting: "Merhaba! Nasıl yardımcı olabiliriz?", open: "Sohbeti aç", close: "Sohbeti kapat",
      write: "Mesajınız", hint: "Enter gönderir, Shift ve Enter yeni satıra geçer", send: "Gönder", you: "Siz", us: "Destek",
      sending: "Gönderiliyor…", sent: "Gönderildi", seen: "Görüldü", failed: "Gönderilemedi", typing: "yazıyor…",
      lost: "Bağlantı yok. Yazdıklarınız bağlantı gelince gönderilir.", news: "Yeni mesaj: ",
      closed: "Şu anda burada kimse yok. Mesajınızı ve e-posta adresinizi bırakın, e-postayla yanıtlayalım.",
      away: "Şu anda bize ulaşılamıyor. Mesajınızı ve e-posta adresinizi bırakın: bağlantı gelince gönderilir.",
      name: "Adınız (isteğe bağlı)", email: "E-posta adresi", message: "Mesaj", bad_email: "Lütfen bir e-posta adresi girin, örneğin ada@example.com.",
      bad_message: "Lütfen bir mesaj yazın.", thanks: "Teşekkürler. E-postayla yanıt vereceğiz.",
      kept: "Saklandı. Bağlantı gelince gönderilir; lütfen bu sayfayı açık bırakın ya da geri dönün.",
      long: "Çok uzun: en fazla {n} karakter.", log: "Konuşma",
    },
    ru: {
      title: "Напишите нам", greeting: "Здравствуйте! Чем можем помочь?", open: "Открыть чат", close: "Закрыть чат",
      write: "Ваше сообщение", hint: "Enter отправляет, Shift и Enter начинает новую строку", send: "Отправить", you: "Вы", us: "Поддержка",
      sending: "Отправляется…", sent: "Отправлено", seen: "Прочитано", failed: "Не удалось отправить", typing: "печатает…",
      lost: "Нет соединения. Написанное будет отправлено, как только оно появится.", news: "Новых сообщений: ",
      closed: "Сейчас никого нет на месте. Оставьте сообщение и адрес почты, и мы ответим письмом.",
      away: "Сейчас с нами нет связи. Оставьте сообщение и адрес почты: они будут отправлены, когда связь появится.",
      name: "Имя (не обязательно)", email: "Адрес почты", message: "Сообщение", bad_email: "Укажите адрес почты, например ada@example.com.",
      bad_message: "Напишите сообщение.", thanks: "Спасибо. Мы ответим письмом.",
      kept: "Сохранено. Будет отправлено, когда появится связь; не закрывайте страницу или вернитесь на неё.",
      long: "Слишком длинно: не больше {n} знаков.", log: "Переписка",
    },
  };
  const language = [script.dataset.language, ...(navigator.languages || [navigator.language])]
    .map((tag) => (tag || "").slice(0, 2).toLowerCase()).find((tag) => WORDS[tag]) || "en";
  const words = WORDS[language];
  const own = (texts) => (texts || {})[language] || (texts || {}).en;
  words.title = own(config.title) || words.title;
  words.greeting = own(config.greeting) || words.greeting;

  // ------------------------------------------------------------------------------- what outlives the page
  // The token stands in the site's own storage: a cookie of the gateway would be a third party's here, and refused.
  const PLACE = "signalbox.webchat." + config.account;
  let memory = {};
  const load = () => {
    try { memory = JSON.parse(localStorage.getItem(PLACE)) || memory; } catch { /* No storage: this page only. */ }
    return memory;
  };
  const save = (changes) => {
    memory = { ...load(), ...changes };
    try { localStorage.setItem(PLACE, JSON.stringify(memory)); } catch { /* As above. */ }
  };
  const outbox = () => load().outbox || [];
  const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

  // -------------------------------------------------------------------------------------------- the looks
  const light = (hex) => {
    const part = (at) => {
      const value = parseInt(hex.slice(at, at + 2), 16) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    };
    return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
  };
  const STYLE = `
:host{all:initial;position:fixed;bottom:16px;z-index:2147483000;font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#1f1f1f}
:host(.right){right:16px}:host(.left){left:16px}
*,*::before{box-sizing:border-box}[hidden]{display:none!important}
button,input,textarea{font:inherit;color:inherit;margin:0}
button{cursor:pointer;border:0}
:focus-visible{outline:3px solid #1f1f1f;outline-offset:2px;box-shadow:0 0 0 2px #fff}
.hide{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.launch{position:relative;display:grid;place-items:center;width:60px;height:60px;border-radius:50%;background:var(--c);color:var(--on);box-shadow:0 4px 14px #0005}
.launch svg{width:28px;height:28px;fill:currentColor}
.badge{position:absolute;top:-4px;right:-4px;min-width:24px;height:24px;padding:0 6px;border-radius:12px;background:#b3261e;color:#fff;font-size:14px;line-height:24px;font-weight:600}
:host(.right) .launch{margin-left:auto}
.panel{display:flex;flex-direction:column;width:370px;max-width:calc(100vw - 32px);height:560px;max-height:calc(100vh - 110px);margin-bottom:12px;border-radius:14px;overflow:hidden;background:#fff;border:1px solid #c4c7c5;box-shadow:0 8px 32px #0004;animation:rise .18s ease-out}
@keyframes rise{from{opacity:0;transform:translateY(12px)}}
header{display:flex;align-items:center;gap:8px;padding:10px 8px 10px 16px;background:var(--c);color:var(--on)}
h2{flex:1;margin:0;font-size:17px;font-weight:600}
.x{width:40px;height:40px;border-radius:50%;background:transparent;color:inherit;font-size:24px;line-height:1}
.x:focus-visible,.send:focus-visible{outline-color:#1f1f1f}
.log{flex:1 1 0;min-height:80px;overflow-y:auto;padding:14px;display:flex;flex-direction:column;gap:8px;overscroll-behavior:contain}
.m{max-width:86%;padding:8px 12px;border-radius:14px;background:#eceff1;align-self:flex-start;overflow-wrap:anywhere}
.m p{margin:0;white-space:pre-wrap}.m a{color:inherit}
.m small{display:block;margin-top:2px;font-size:12.5px;color:#4a4d50}
.mine{align-self:flex-end;background:var(--c);color:var(--on)}
.mine small{color:inherit}
.line{min-height:0;padding:0 16px;font-size:14px;color:#4a4d50}.line:not(:empty){padding:4px 16px}
.dots::after{content:"";display:inline-block;width:6px;height:6px;margin-left:6px;border-radius:50%;background:#4a4d50;animation:blink 1s infinite alternate}
@keyframes blink{from{opacity:.15}}
form{border-top:1px solid #c4c7c5;padding:10px;background:#fff}
.talk{display:flex;gap:8px;align-items:flex-end}
textarea,input{display:block;width:100%;padding:9px 11px;border:1px solid #747775;border-radius:10px;background:#fff;resize:none}
textarea{min-height:44px;max-height:140px}
[aria-invalid=true]{border:2px solid #b3261e}
.send{flex:none;min-width:44px;min-height:44px;padding:0 16px;border-radius:10px;background:var(--c);color:var(--on);font-weight:600}
.ask label{display:block;margin:6px 0 2px;font-size:14px}.ask{max-height:75%;overflow-y:auto;flex:none}
.ask .send{margin-top:10px;width:100%}
.bad{margin:2px 0 0;font-size:14px;color:#b3261e}
@media (max-width:480px){.panel{position:fixed;inset:0;width:auto;max-width:none;height:auto;max-height:none;margin:0;border-radius:0;border:0}.panel:not([hidden])~.launch{display:none}}
@media (prefers-reduced-motion:reduce){*,*::after{animation:none!important;scroll-behavior:auto!important}}
@media (forced-colors:active){.m,.launch,.send{border:1px solid}}`;

  const make = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };
  const icon = (path) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const line = document.createElementNS(space, "path");
    line.setAttribute("d", path);
    svg.append(line);
    return svg;
  };

  const host = make("div", { id: "signalbox-webchat", class: config.position || "right" });
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet(); // Not subject to style-src, as a style element would be.
  sheet.replaceSync(STYLE);
  root.adoptedStyleSheets = [sheet];
  host.style.setProperty("--c", config.colour);
  host.style.setProperty("--on", light(config.colour) > 0.179 ? "#000" : "#fff"); // At least 4.5 : 1 either way.

  const badge = make("span", { class: "badge", hidden: true, "aria-hidden": "true" });
  const launch = make("button", { class: "launch", type: "button", "aria-expanded": "false", "aria-controls": "panel", "aria-label": words.open },
    icon("M4 3h16a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2H9l-5 4v-4a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2z"), badge);
  const told = make("div", { class: "hide", role: "status" });
  const shut = make("button", { class: "x", type: "button", "aria-label": words.close }, make("span", { "aria-hidden": "true" }, "×"));
  const log = make("div", { class: "log", role: "log", "aria-live": "polite", "aria-label": words.log, tabindex: "0" });
  const typing = make("div", { class: "line", role: "status" });
  const state = make("div", { class: "line", role: "status" });
  const box = make("textarea", { id: "box", rows: "1", "aria-label": words.write, placeholder: words.write, "aria-describedby": "hint", enterkeyhint: "send" });
  const talk = make("form", { class: "talk", novalidate: true }, box,
    make("span", { id: "hint", class: "hide" }, words.hint), make("button", { class: "send", type: "submit" }, words.send));
  const fields = {
    name: make("input", { id: "name", autocomplete: "name", maxlength: "255" }),
    email: make("input", { id: "email", type: "email", autocomplete: "email", required: true, "aria-required": "true", maxlength: "320" }),
    message: make("textarea", { id: "message", rows: "3", required: true, "aria-required": "true", maxlength: String(config.longest) }),
  };
  const ask = make("form", { class: "ask", novalidate: true, hidden: true });
  for (const [name, field] of Object.entries(fields)) {
    ask.append(make("label", { for: name }, words[name]), field, make("p", { class: "bad", id: name + "-bad", hidden: true }));
  }
  ask.append(make("button", { class: "send", type: "submit" }, words.send));
  const panel = make("section", { class: "panel", id: "panel", role: "dialog", "aria-labelledby": "title", hidden: true },
    make("header", {}, make("h2", { id: "title" }, words.title), shut), log, typing, state, talk, ask);
  root.append(make("div", { lang: language }, panel, launch, told));

  // --------------------------------------------------------------------------------------------- messages
  const clock = new Intl.DateTimeFormat((navigator.languages || []).find((tag) => tag.startsWith(language)) || language, { hour: "2-digit", minute: "2-digit" });
  const shown = new Map(); // n → {element, message}
  const waiting = new Map(); // widget's id → element, until it has a number
  let latest = 0, seen = 0, isOnline = true, isBegun = false, isReached = true;

  const withLinks = (text) => text.split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)])/).map((part, at) =>
    at % 2 ? make("a", { href: part, target: "_blank", rel: "noopener noreferrer nofollow" }, part) : part);
  const bubble = (message) => {
    const who = message.mine ? words.you : message.author || words.us;
    const small = make("small");
    const element = make("div", { class: message.mine ? "m mine" : "m" }, make("span", { class: "hide" }, who + ": "),
      make("p", {}, ...(message.mine ? [message.text] : withLinks(message.text))), small);
    element.note = (status) => {
      const at = message.at ? clock.format(new Date(message.at)) : "";
      small.textContent = [message.mine ? "" : message.author, at, status].filter(Boolean).join(" · ");
    };
    element.note("");
    return element;
  };
  const say = (text) => {
    const element = bubble({ text, mine: false });
    log.append(element);
    return element;
  };
  const follow = () => { log.scrollTop = log.scrollHeight; };
  const marks = () => {
    let last = null;
    for (const { element, message } of shown.values()) {
      if (!message.mine) continue;
      element.note("");
      if (!last || message.n > last.message.n) last = { element, message };
    }
    if (last) last.element.note(last.message.n <= seen ? words.seen : words.sent);
  };
  const unread = () => [...shown.values()].filter(({ message }) => !message.mine && !message.read);
  const count = () => {
    const number = panel.hidden ? unread().length : 0;
    badge.hidden = number === 0;
    badge.textContent = number > 9 ? "9+" : String(number);
    launch.setAttribute("aria-label", number ? `${words.open}. ${words.news}${number}` : words.open);
    return number;
  };
  const place = (message) => {
    if (shown.has(message.n)) return;
    if (message.mine) {
      waiting.get(message.id)?.remove();
      waiting.delete(message.id);
      save({ outbox: outbox().filter((one) => one.id !== message.id) });
    }
    const element = bubble(message);
    const after = [...shown.entries()].filter(([n]) => n > message.n).sort((a, b) => a[0] - b[0])[0];
    log.insertBefore(element, after ? after[1].element : [...waiting.values()][0] || null);
    shown.set(message.n, { element, message });
    latest = Math.max(latest, message.n);
  };
  const take = (news) => {
    const before = unread().length;
    for (const message of news.messages || []) place(message);
    if ((news.messages || []).some((one) => !one.mine)) typed();
    seen = Math.max(seen, news.seen || 0);
    marks();
    if ((news.messages || []).length) follow();
    if (count() > before) told.textContent = words.news + unread().length;
    if ("online" in news) change({ online: news.online });
    haveRead();
  };
  const isTyping = () => {
    typing.textContent = `${words.us} ${words.typing}`;
    typing.classList.add("dots");
    clearTimeout(isTyping.timer);
    isTyping.timer = setTimeout(typed, 6000);
  };
  const typed = () => {
    typing.textContent = "";
    typing.classList.remove("dots");
  };
  const haveRead = () => {
    const open = unread();
    if (panel.hidden || document.hidden || !open.length || !isBegun) return;
    const n = Math.max(...open.map(({ message }) => message.n));
    for (const { message } of open) message.read = true;
    tell("read", { n }).catch(() => { for (const { message } of open) message.read = false; });
  };

  // ------------------------------------------------------------------------------- chat or form, and why
  let notice = null, isFormDone = false;
  const change = (what) => {
    if ("online" in what) isOnline = what.online;
    if ("reached" in what) isReached = what.reached;
    const unreachable = !isReached && !isBegun;
    const isBusy = Object.values(fields).some((field) => field.value.trim());
    const form = !isFormDone && (unreachable || !isOnline || (isBusy && !ask.hidden));
    const text = !form ? "" : !isOnline ? words.closed : words.away;
    if (notice && notice.said !== text) { notice.remove(); notice = null; }
    if (text && !notice) { notice = say(text); notice.said = text; }
    const hadFocus = root.activeElement && (talk.contains(root.activeElement) || ask.contains(root.activeElement));
    const isSwitched = ask.hidden === form;
    ask.hidden = !form;
    talk.hidden = form;
    if (isSwitched || text) follow();
    if (isSwitched && hadFocus) (form ? fields.email : box).focus();
    state.textContent = isReached || unreachable ? "" : words.lost;
  };

  // ----------------------------------------------------------------------------------------- the gateway
  let identity = window.signalboxIdentity || script.dataset.identity || "";
  let socket = null, isLive = false, isRunning = false, failures = 0, pollUntil = 0;
  const pause = (ms) => new Promise((done) => { pause.end = done; setTimeout(done, ms); });
  const backoff = () => Math.min(30000, 1000 * 2 ** Math.min(failures, 5)) * (0.7 + Math.random() * 0.6);

  class Refused extends Error {
    constructor(status, body, wait) {
      super(body.detail || String(status));
      Object.assign(this, { status, field: body.field, wait: wait || 5 });
    }
  }
  const call = async (path, body, seconds = 15) => {
    const ending = new AbortController();
    const timer = setTimeout(() => ending.abort(), seconds * 1000);
    try {
      const headers = {};
      if (body) headers["Content-Type"] = "application/json";
      if (load().token && path !== "sessions" && path !== "form") headers.Authorization = "Bearer " + load().token;
      const answer = await fetch(`${home}/${path}`, {
        method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal: ending.signal,
        credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer",
      });
      const said = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Refused(answer.status, said, Number(answer.headers.get("Retry-After")));
      return said;
    } finally {
      clearTimeout(timer);
    }
  };
  const tell = async (type, what) => {
    if (isLive) socket.send(JSON.stringify({ type, ...what }));
    else await call(type, { ...what });
  };
  const begin = async () => {
    const before = load();
    let news;
    try {
      news = await call("sessions", { token: before.token || "", identity });
    } catch (error) {
      if (error.field === "identity") identity = ""; // Better an unknown visitor than none.
      throw error;
    }
    if (before.session && before.session !== news.session) clear();
    save({ token: news.token, session: news.session });
    isBegun = true;
    change({ reached: true });
    take(news);
    for (const one of outbox()) pend(one);
  };
  const clear = () => {
    for (const { element } of shown.values()) element.remove();
    for (const element of waiting.values()) element.remove();
    shown.clear();
    waiting.clear();
    latest = seen = 0;
    save({ outbox: [] });
  };

  const listen = () => new Promise((ended) => {
    let isReady = false;
    let made;
    try { made = new WebSocket(home.replace(/^http/, "ws") + "/socket"); } catch { return ended(false); }
    const timer = setTimeout(() => made.close(), 6000);
    made.onopen = () => made.send(JSON.stringify({ type: "hello", token: load().token, after: latest }));
    made.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type === "news") {
        if (!isReady) {
          isReady = isLive = true;
          socket = made;
          failures = 0;
          clearTimeout(timer);
          change({ reached: true });
          flush();
        }
        take(frame);
      } else if (frame.type === "typing") isTyping();
      else if (frame.type === "ack") settle(frame.id, frame);
      else if (frame.type === "refused") settle(frame.id, new Refused(frame.status, frame, frame.retry_after));
    };
    made.onclose = ({ code }) => {
      clearTimeout(timer);
      if (socket === made) { isLive = false; socket = null; }
      settle("", null);
      if (code === 4401) isBegun = false;
      ended(isReady);
    };
  });
  const poll = async () => {
    while (Date.now() < pollUntil) {
      const news = await call(`messages?after=${latest}&seen=${seen}&wait=20`, null, 40);
      failures = 0;
      change({ reached: true });
      if (news.typing) isTyping();
      take(news);
      flush();
    }
  };
  const run = async () => {
    if (isRunning) return;
    isRunning = true;
    for (;;) {
      try {
        if (!isBegun) await begin();
        sendForm();
        if (Date.now() < pollUntil) {
          flush();
          await poll();
          continue;
        }
        if (await listen()) {
          await pause(300 + Math.random() * 1500);
          continue;
        }
        // A socket that does not come to life: a proxy or a policy forbids it, or nobody is there. Polling tells which.
        pollUntil = Date.now() + 300000;
      } catch (error) {
        if (error.status === 401) { isBegun = false; if (failures) save({ token: "" }); }
        failures += 1;
        if (error.status === 403 || error.status === 404) console.warn("Signalbox web chat: " + error.message);
        change({ reached: false });
        await pause(error.status === 429 ? error.wait * 1000 : backoff());
      }
    }
  };

  // ----------------------------------------------------------------------------------------- saying things
  let sending = null;
  const settle = (id, outcome) => {
    if (sending && (id === sending.id || !id)) sending.done(outcome);
  };
  const pend = (one) => {
    if (waiting.has(one.id)) return;
    const element = bubble({ text: one.text, mine: true });
    element.note(words.sending);
    waiting.set(one.id, element);
    log.append(element);
    follow();
  };
  const bySocket = (one) => new Promise((resolve, reject) => {
    const timer = setTimeout(() => sending.done(null), 15000);
    sending = { id: one.id, done: (outcome) => {
      clearTimeout(timer);
      sending = null;
      if (outcome && !(outcome instanceof Error)) resolve(outcome);
      else reject(outcome || new Error("lost"));
    } };
    socket.send(JSON.stringify({ type: "send", ...one, language, page: location.href.split(/[?#]/)[0] }));
  });
  const flush = async () => {
    if (flush.isBusy || !isBegun) return;
    flush.isBusy = true;
    try {
      for (let one = outbox()[0]; one; one = outbox()[0]) {
        pend(one);
        try {
          const ack = isLive ? await bySocket(one)
            : await call("messages", { ...one, language, page: location.href.split(/[?#]/)[0] });
          place({ ...one, mine: true, n: ack.n, at: ack.at });
          save({ outbox: outbox().filter((other) => other.id !== one.id) });
          marks();
          change({ online: ack.online });
        } catch (error) {
          const isFinal = error.status >= 400 && error.status < 500 && ![401, 408, 429].includes(error.status);
          if (!isFinal) {
            if (error.status === 401) isBegun = false;
            setTimeout(flush, (error.wait || 3) * 1000);
            break;
          }
          waiting.get(one.id)?.note(words.failed);
          waiting.delete(one.id);
          save({ outbox: outbox().filter((other) => other.id !== one.id) });
        }
      }
    } finally {
      flush.isBusy = false;
    }
  };
  const submit = () => {
    const text = box.value.trim();
    if (!text) return;
    if ([...text].length > config.longest) {
      state.textContent = words.long.replace("{n}", config.longest);
      return;
    }
    const one = { id: newId(), text };
    save({ outbox: [...outbox(), one] });
    box.value = "";
    grow();
    pend(one);
    flush();
  };
  const grow = () => {
    box.style.height = "auto";
    box.style.height = Math.min(box.scrollHeight + 2, 140) + "px";
  };

  // ------------------------------------------------------------------------------------- the offline form
  const complain = (name, text) => {
    const bad = root.getElementById(name + "-bad");
    bad.textContent = text;
    bad.hidden = !text;
    fields[name].setAttribute("aria-invalid", String(Boolean(text)));
    if (text) fields[name].setAttribute("aria-describedby", name + "-bad");
    else fields[name].removeAttribute("aria-describedby");
    return Boolean(text);
  };
  const sendForm = async () => {
    const kept = load().form;
    if (!kept || sendForm.isBusy) return;
    sendForm.isBusy = true;
    try {
      await call("form", kept);
      save({ form: null });
      formDone(words.thanks);
    } catch (error) {
      if (error.status >= 400 && error.status < 500 && error.status !== 429 && error.status !== 408) {
        save({ form: null });
        isFormDone = false;
        change({});
        complain(fields[error.field] ? error.field : "message", error.field === "email" ? words.bad_email : words.failed);
      } else {
        formDone(words.kept);
        setTimeout(sendForm, Math.max(error.wait || 0, 10) * 1000);
      }
    } finally {
      sendForm.isBusy = false;
    }
  };
  const formDone = (text) => {
    if (formDone.said === text) return;
    const hadFocus = ask.contains(root.activeElement);
    formDone.said = text;
    formDone.line?.remove();
    isFormDone = true;
    change({});
    formDone.line = say(text);
    follow();
    if (hadFocus) box.focus();
  };
  const submitForm = () => {
    const email = fields.email.value.trim();
    const message = fields.message.value.trim();
    const isBadEmail = complain("email", /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(email) ? "" : words.bad_email);
    const isBadMessage = complain("message", message ? "" : words.bad_message);
    if (isBadEmail || isBadMessage) {
      (isBadEmail ? fields.email : fields.message).focus();
      return;
    }
    formDone.said = null;
    save({ form: { id: newId(), email, message, name: fields.name.value.trim(), language, page: location.href.split(/[?#]/)[0] } });
    fields.message.value = "";
    fields.name.value = "";
    fields.email.value = "";
    sendForm();
  };

  // ----------------------------------------------------------------------------------------- hands on keys
  const open = () => {
    panel.hidden = false;
    launch.setAttribute("aria-expanded", "true");
    count();
    run();
    follow();
    haveRead();
    (talk.hidden ? fields.email : box).focus();
  };
  const close = () => {
    panel.hidden = true;
    launch.setAttribute("aria-expanded", "false");
    launch.focus();
  };
  launch.addEventListener("click", () => (panel.hidden ? open() : close()));
  shut.addEventListener("click", close);
  panel.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } });
  talk.addEventListener("submit", (event) => { event.preventDefault(); submit(); box.focus(); });
  ask.addEventListener("submit", (event) => { event.preventDefault(); submitForm(); });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
  });
  box.addEventListener("input", () => {
    grow();
    if (!isBegun || !shown.size || !box.value.trim() || Date.now() - (box.told || 0) < 3000) return;
    box.told = Date.now();
    tell("typing", {}).catch(() => {});
  });
  document.addEventListener("visibilitychange", haveRead);
  window.addEventListener("online", () => { failures = 0; pause.end?.(); flush(); sendForm(); });
  window.signalbox = {
    open, close,
    identify: (token) => { identity = token; isBegun = false; socket?.close(); pause.end?.(); run(); },
  };

  const settleIn = () => {
    document.body.append(host);
    say(words.greeting);
    if (load().token || load().form) run(); // A visitor who was here before may have an answer.
  };
  if (document.body) settleIn();
  else document.addEventListener("DOMContentLoaded", settleIn);
})();
