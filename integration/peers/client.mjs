// A near end of HBONE on Node's http2: every connection to a port on loopback becomes a CONNECT.
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';

const [dir, tls, port, host, application] = process.argv.slice(2);
const pem = (name) => fs.readFileSync(`${dir}/${name}.pem`);
let session;
const tunnel = () => {
  if (session && !session.closed && !session.destroyed) return session;
  const opened = http2.connect(`https://${host}:15008`, {
    cert: pem('cert'), key: pem('key'), ca: pem('root'),
    minVersion: tls, maxVersion: tls, checkServerIdentity: () => undefined,
  });
  const forget = () => { if (session === opened) session = undefined; };
  opened.on('error', (error) => console.log(`session: ${error.message}`));
  opened.on('goaway', (code) => { console.log(`goaway ${code}`); forget(); });
  opened.on('close', forget);
  session = opened;
  return opened;
};
const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  const stream = tunnel().request({
    ':method': 'CONNECT', ':authority': `${host}:${application}`,
  }, { endStream: false });
  stream.on('error', (error) => console.log(`stream: ${error.message}`));
  stream.on('response', (headers) => {
    if (headers[':status'] !== 200) {
      console.log(`status ${headers[':status']}`);
      socket.resetAndDestroy();
      return;
    }
    stream.pipe(socket);
  });
  socket.pipe(stream);
  // `close` would end it in good order first.
  socket.on('error', (error) => stream.destroy(error));
  stream.on('close', () => {
    if (stream.rstCode !== http2.constants.NGHTTP2_NO_ERROR) socket.resetAndDestroy();
  });
});
server.listen(Number(port), '127.0.0.1', () => console.log('serving'));
