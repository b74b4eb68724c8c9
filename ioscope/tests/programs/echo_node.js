// Echo server on Node.js.
//
// Usage: node echo_node.js PORT REQUESTS
// Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.
'use strict';

const net = require('net');

const port = Number(process.argv[2]);
let left = Number(process.argv[3]);

const server = net.createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy());
  socket.on('data', (data) => {
    for (const byte of data) {
      if (byte === 10) left -= 1;
    }
    socket.write(data, () => {
      if (left <= 0) process.exit(0);
    });
  });
});
server.listen(port, '127.0.0.1', () => console.log('ready'));
