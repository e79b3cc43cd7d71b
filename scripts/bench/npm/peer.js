// The npm side of the benchmarks: import a tree, serve a drive over TCP, mount a drive.
//   node peer.js import STORE TREE            -> {"key", "seconds"}
//   node peer.js serve  STORE KEY             -> {"port"}; until stdin ends
//   node peer.js mount  STORE KEY DIR [PORT]  -> {"ready": true}; until stdin ends; PORT = peer on loopback
//   node peer.js list   STORE KEY PATH        -> {"entries", "ms"} of one cold listing with attributes through the API
//   node peer.js cat    STORE KEY PATH PORT   -> {"bytes", "seconds"} of one cold read over TCP through the API
'use strict'
const fs = require('fs')
const net = require('net')
const path = require('path')
const hyperdrive = require('hyperdrive')
const Corestore = require('corestore')

const [, , verb, storeDir, ...rest] = process.argv
const say = value => process.stdout.write(JSON.stringify(value) + '\n')
const die = err => { process.stderr.write(String(err && err.stack) + '\n'); process.exit(1) }
process.on('unhandledRejection', die)

function call (object, method, ...args) {
  return new Promise((resolve, reject) => {
    object[method](...args, (err, value) => err ? reject(err) : resolve(value))
  })
}

async function open (key) {
  const store = new Corestore(storeDir)
  await store.ready()
  const drive = hyperdrive(store, key ? Buffer.from(key, 'hex') : null)
  drive.on('error', die)
  return { store, drive }
}

function connect (store, port) {
  const socket = net.connect(port, '127.0.0.1')
  const stream = store.replicate(true, { live: true })
  socket.setNoDelay(true)
  stream.on('error', () => {})
  socket.on('error', () => {})
  socket.pipe(stream).pipe(socket)
}

function * walk (dir) {
  for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
    const full = path.join(dir, entry.name)
    if (entry.isDirectory()) yield * walk(full)
    else if (entry.isFile()) yield full
  }
}

async function importTree (tree) {
  const { drive } = await open(null)
  await call(drive, 'ready')
  const started = process.hrtime.bigint()
  const files = [...walk(tree)]
  let next = 0
  const worker = async () => {
    while (next < files.length) {
      const file = files[next++]
      const name = '/' + path.relative(tree, file)
      const stat = fs.statSync(file)
      await new Promise((resolve, reject) => {
        fs.createReadStream(file, { highWaterMark: 65536 })
          .pipe(drive.createWriteStream(name, { mode: stat.mode & 0o777, mtime: stat.mtimeMs }))
          .on('error', reject).on('finish', resolve)
      })
    }
  }
  await Promise.all(Array.from({ length: 16 }, worker))
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  await call(drive, 'close')
  say({ key: drive.key.toString('hex'), seconds })
  process.exit(0)
}

async function serve (key) {
  const { store, drive } = await open(key)
  await call(drive, 'ready')
  await call(drive, 'getContent')
  const server = net.createServer(socket => {
    const stream = store.replicate(false, { live: true })
    socket.setNoDelay(true)
    stream.on('error', () => {})
    socket.on('error', () => {})
    socket.pipe(stream).pipe(socket)
  })
  server.listen(0, '127.0.0.1', () => say({ port: server.address().port }))
  untilStdinEnds(async () => {})
}

async function mount (key, dir, port) {
  const { HyperdriveFuse } = require('hyperdrive-fuse')
  const { store, drive } = await open(key)
  if (port) connect(store, Number(port))
  await call(drive, 'ready')
  const fuse = new HyperdriveFuse(drive, dir, { force: true, displayFolder: false })
  await fuse.mount()
  say({ ready: true })
  untilStdinEnds(() => fuse.unmount())
}

async function cat (key, name, port) {
  const { store, drive } = await open(key)
  connect(store, Number(port))
  await call(drive, 'ready')
  const started = process.hrtime.bigint()
  let bytes = 0
  await new Promise((resolve, reject) => {
    drive.createReadStream(name).on('data', chunk => { bytes += chunk.length }).on('end', resolve).on('error', reject)
  })
  say({ bytes, seconds: Number(process.hrtime.bigint() - started) / 1e9 })
  process.exit(0)
}

async function list (key, name) {
  const { drive } = await open(key)
  await call(drive, 'ready')
  const started = process.hrtime.bigint()
  const entries = await call(drive, 'readdir', name, { includeStats: true })
  say({ entries: entries.length, ms: Number(process.hrtime.bigint() - started) / 1e6 })
  process.exit(0)
}

function untilStdinEnds (finish) {
  process.stdin.resume()
  process.stdin.on('end', async () => {
    await finish()
    process.exit(0)
  })
}

const verbs = { import: importTree, serve, mount, list, cat }
verbs[verb](...rest).catch(die)
