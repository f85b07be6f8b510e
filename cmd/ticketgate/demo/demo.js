"use strict";
// The demo page of ticketgate dev: what an application's page does, without a library.

const $ = id => document.getElementById(id);
const shown = 200; // lines kept on the page

let config, socket, ticket, sentAt;

// What to tell a person; the program's own rules are in the close-code table of the documentation.
const meaning = {
  1000: "normal end",
  1001: "the other side is going away: reconnect",
  1002: "the client broke the protocol",
  1003: "this stream takes no messages from clients",
  1006: "refused or lost: a ticket works once, and only for a short time",
  1007: "a text message was not UTF-8",
  1008: "a guard refused the message",
  1009: "the message is too large",
  1011: "a fault in the gateway",
  1012: "the gateway is draining: reconnect with a new ticket",
  1013: "the gateway is overloaded: reconnect later",
  4401: "the session has ended: ask for a new ticket",
  4403: "revoked",
  4408: "idle for too long",
  4409: "replaced by a newer connection",
  4429: "a limit was exceeded: wait before reconnecting",
  4440: "this page reads too slowly",
  4502: "the backend was lost",
  4504: "the backend is too slow",
};

function state(name, text) {
  $("state").dataset.state = name;
  $("state").textContent = text;
  const open = name === "open";
  $("close").disabled = $("message").disabled = $("submit").disabled = !open;
  $("connect").disabled = open || name === "connecting";
  $("replay").disabled = open || name === "connecting" || !ticket;
}

function log(text) {
  const line = document.createElement("li");
  line.textContent = text;
  $("log").append(line);
  while ($("log").children.length > shown) $("log").firstChild.remove();
  line.scrollIntoView({ block: "nearest" });
}

async function ask(stream) {
  const answer = await fetch("/v1/tickets", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-API-Key": config.key },
    body: JSON.stringify({ stream }),
  });
  const body = await answer.json();
  if (!answer.ok) {
    const again = answer.headers.get("Retry-After");
    throw new Error(`${answer.status} ${body.title}: ${body.detail || ""}${again ? `; try again in ${again} s` : ""}`);
  }
  return body;
}

function open(t) {
  socket = new WebSocket(t.url, t.protocols); // the second secret travels as a subprotocol
  socket.onopen = () => {
    state("open", "connected");
    $("message").focus();
  };
  socket.onmessage = event => {
    const took = sentAt ? `  (${(performance.now() - sentAt).toFixed(1)} ms)` : "";
    sentAt = undefined;
    log(`< ${event.data}${took}`);
  };
  socket.onclose = event => {
    const reason = event.reason ? ` "${event.reason}"` : "";
    state("closed", `closed ${event.code}${reason}: ${meaning[event.code] || "see the application"}`);
  };
}

async function connect() {
  state("connecting", "asking for a ticket");
  try {
    ticket = await ask($("stream").value);
  } catch (e) {
    state("refused", e.message);
    return;
  }
  const { used, limit } = ticket.connections;
  $("ticket").textContent = `${ticket.id}, ${ticket.expires_in} s, single use, plan ${ticket.plan}`;
  $("slots").textContent = `${used} of ${limit}`;
  open(ticket);
}

$("open").onsubmit = event => {
  event.preventDefault();
  connect();
};
$("replay").onclick = () => open(ticket);
$("close").onclick = () => socket.close(1000);
$("send").onsubmit = event => {
  event.preventDefault();
  const text = $("message").value;
  sentAt = performance.now();
  socket.send(text);
  log(`> ${text}`);
  $("message").value = "";
};

fetch("config.json").then(r => r.json()).then(c => {
  config = c;
  for (const name of c.streams) $("stream").append(new Option(name));
  state("idle", "not connected");
});
