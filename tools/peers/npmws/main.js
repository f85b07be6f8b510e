'use strict';

// A WebSocket server on the package ws: one process, one thread, as node is. /echo sends every message back, /feed sends one
// every tick in a loop over the clients, as the package's README does. It prints its address and ends on SIGTERM.
//
// bufferutil is beside it because the README recommends it: older versions of node unmask slowly without. Compression is off,
// which is the package's default, as is that text is checked for UTF-8. There are no pings: peers of a bench do not vanish.

const { createServer } = require('node:http');
const { parseArgs } = require('node:util');
const { WebSocket, WebSocketServer } = require('ws');

const messageMax = 1 << 20; // bytes of a message that is echoed
const queueMax = 64; // messages of the feed that wait for a client; those behind them are lost for it
const bytesMin = 64;

const { values } = parseArgs({
  options: {
    address: { type: 'string', default: '127.0.0.1:0' }, // where to listen
    every: { type: 'string', default: '10ms' }, // how often /feed has a message
    bytes: { type: 'string', default: '128' }, // of such a message
  },
});
const [host, port] = values.address.split(':');
const every = milliseconds(values.every);
const bytes = Number(values.bytes);
if (!(every > 0) || !(bytes >= bytesMin)) {
  console.error(`npmws: --bytes is at least ${bytesMin}, and --every more than 0, as in 10ms or 1s`);
  process.exit(1);
}

const options = { noServer: true, maxPayload: messageMax };
const echo = new WebSocketServer(options);
const feed = new WebSocketServer(options);

echo.on('connection', (socket) => {
  socket.on('error', () => {}); // close follows
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});

feed.on('connection', (socket) => {
  socket.on('error', () => {}); // close follows
  start();
});

const server = createServer((request, response) => response.writeHead(426).end());
server.on('upgrade', (request, socket, head) => {
  const answers = { '/echo': echo, '/feed': feed }[request.url];
  if (!answers) {
    socket.destroy();
    return;
  }
  answers.handleUpgrade(request, socket, head, (webSocket) => answers.emit('connection', webSocket, request));
});
server.listen({ host, port: Number(port), backlog: 4096 }, () => {
  const at = server.address();
  console.log(`${at.address}:${at.port}`);
});
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => process.exit(0));
}

// start begins to tick, at the first subscriber. Ticks keep to a grid, which setInterval does not: other servers' tickers do.
let due = 0;
function start() {
  if (due > 0) return;
  due = performance.now() + every;
  tick();
}

function tick() {
  const now = performance.now();
  if (now >= due) {
    broadcast(message(bytes));
    due += every * Math.max(1, Math.ceil((now - due) / every)); // what a busy core missed stays missed
  }
  setTimeout(tick, due - performance.now());
}

function broadcast(data) {
  for (const client of feed.clients) {
    if (client.readyState === WebSocket.OPEN && client.bufferedAmount < queueMax * data.length) {
      client.send(data, { binary: false });
    }
  }
}

// message is a JSON object of that many bytes that begins with the time, in nanoseconds as the other servers give it; the
// clock here has microseconds.
function message(size) {
  const micros = Math.round((performance.timeOrigin + performance.now()) * 1000);
  const second = new Date(Math.floor(micros / 1000)).toISOString().slice(0, 19);
  const fraction = String((micros % 1_000_000) * 1000).padStart(9, '0');
  const head = `{"time":"${second}.${fraction}Z","pad":"`;
  return Buffer.from(head.padEnd(size - 2, 'x') + '"}');
}

// milliseconds reads a duration as Go writes it, of one unit; NaN if it is none.
function milliseconds(text) {
  const [, number, unit] = /^([\d.]+)(us|ms|s|m|h)$/.exec(text) ?? [];
  return number * { us: 0.001, ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit];
}
