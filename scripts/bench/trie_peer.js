// The npm side of the benchmark of tries: one process per part, so that nothing is warm that should be cold.
//   node trie_peer.js DIALECT write DIR KEYS SINGLES BATCH  -> {"put", "batch": {"s", "cpu_s"}}
//   node trie_peer.js DIALECT read  DIR KEYS                -> {"get", "get_again", "iterate", "diff"}
//   node trie_peer.js DIALECT fill  DIR FILES               -> {"key"}; a drive with one directory of FILES empty files
//   node trie_peer.js DIALECT names DIR                     -> {"names"}
//   node trie_peer.js DIALECT stats DIR                     -> {"stats", "stats_again"}
'use strict'
const path = require('path')
const { createRequire } = require('module')

const [, , dialect, verb, dir, ...rest] = process.argv
const numbers = rest.map(Number)
const load = createRequire(path.join(__dirname, '../../tests/interop', dialect, 'package.json'))
const names = { dweb: ['dwebtrie', 'basestorex', 'ddrive'], hypercore: ['hypertrie', 'corestore', 'hyperdrive'] }[dialect]
const die = err => { process.stderr.write(String(err && err.stack) + '\n'); process.exit(1) }
process.on('unhandledRejection', die)

function call (object, method, ...args) {
  return new Promise((resolve, reject) => {
    object[method](...args, (err, value) => err ? reject(err) : resolve(value))
  })
}

const seconds = async work => {
  const started = process.hrtime.bigint()
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return { s: Number(process.hrtime.bigint() - started) / 1e9, cpu_s: (user + system) / 1e6 }
}

const name = number => 'user/' + (number * 7919 % 1000003) + '/name'
const value = number => Buffer.from('value ' + number)

async function open () {
  const trie = load(names[0])(path.join(dir, 'trie'))
  await call(trie, 'ready')
  return trie
}

async function openDrive () {
  const store = new (load(names[1]))(path.join(dir, 'drive'))
  await store.ready()
  const drive = load(names[2])(store)
  await call(drive, 'ready')
  return drive
}

const parts = {
  async write ([keys, singles, batch]) {
    const trie = await open()
    const put = await seconds(async () => {
      for (let number = 0; number < singles; number++) await call(trie, 'put', name(number), value(number))
    })
    const batches = await seconds(async () => {
      for (let start = singles; start < keys; start += batch) {
        const changes = []
        for (let number = start; number < Math.min(start + batch, keys); number++) {
          changes.push({ type: 'put', key: name(number), value: value(number) })
        }
        await call(trie, 'batch', changes)
      }
    })
    return { put, batch: batches }
  },

  async read ([keys]) {
    const trie = await open()
    const get = () => seconds(async () => {
      for (let count = 0; count < keys; count++) {
        const number = count * 104729 % keys
        const node = await call(trie, 'get', name(number))
        if (!node.value.equals(value(number))) die(new Error('wrong value of ' + name(number)))
      }
    })
    const iterate = () => seconds(async () => {
      const found = await call(trie, 'list', '')
      if (found.length !== keys) die(new Error(found.length + ' keys'))
    })
    const diff = () => seconds(async () => {
      let count = 0
      const changes = trie.diff(keys >> 1)
      while (await call(changes, 'next')) count++
      if (count < keys >> 1) die(new Error(count + ' changes'))
    })
    const found = { get: await get(), get_again: await get() }
    found.iterate = await iterate()
    found.diff = await diff()
    return found
  },

  async fill ([files]) {
    const drive = await openDrive()
    for (let number = 0; number < files; number++) await call(drive, 'create', 'many/file-' + number)
    return { key: drive.key.toString('hex') }
  },

  async names () {
    const drive = await openDrive()
    return { names: await listed(drive, {}) }
  },

  async stats () {
    const drive = await openDrive()
    return { stats: await listed(drive, { includeStats: true }), stats_again: await listed(drive, { includeStats: true }) }
  }
}

const listed = (drive, options) => seconds(async () => {
  const found = await call(drive, 'readdir', 'many', options)
  if (!found.length) die(new Error('nothing listed'))
})

parts[verb](numbers).then(found => {
  process.stdout.write(JSON.stringify({ ...found, peak_mb: process.resourceUsage().maxRSS / 1024 }) + '\n')
  process.exit(0)
}, die)
