// A far end of HBONE on Node's http2 (nghttp2 and OpenSSL): answers CONNECT with a connection to a
// port on loopback. SIGUSR2 makes it say GOAWAY on every connection and serve what is open.
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';

const [dir, tls, port, application] = process.argv.slice(2);
const pem = (name) => fs.readFileSync(`${dir}/${name}.pem`);
const server = http2.createSecureServer({
  cert: pem('cert'), key: pem('key'), ca: pem('root'),
  requestCert: true, rejectUnauthorized: true, ALPNProtocols: ['h2'],
  minVersion: tls, maxVersion: tls,
});
const sessions = new Set();
server.on('session', (session) => {
  sessions.add(session);
  session.on('error', (error) => console.log(`session: ${error.message}`));
  session.on('close', () => sessions.delete(session));
});
server.on('stream', (stream, headers) => {
  if (headers[':method'] !== 'CONNECT') {
    stream.respond({ ':status': 405 }, { endStream: true });
    return;
  }
  stream.on('error', (error) => console.log(`stream: ${error.message}`));
  const socket = net.connect({ port: Number(application), host: '127.0.0.1', allowHalfOpen: true });
  socket.on('connect', () => {
    socket.setNoDelay(true);
    stream.respond({ ':status': 200 });
    stream.pipe(socket);
    socket.pipe(stream);
  });
  // `close` would end it in good order first.
  socket.on('error', (error) => stream.destroy(error));
  stream.on('close', () => {
    if (stream.rstCode !== http2.constants.NGHTTP2_NO_ERROR) socket.resetAndDestroy();
  });
});
process.on('SIGUSR2', () => {
  console.log(`leaving ${sessions.size}`);
  for (const session of sessions) session.close();
});
server.listen(Number(port), '0.0.0.0', () => console.log('serving'));
