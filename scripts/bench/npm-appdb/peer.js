// The npm side of the database benchmark: three writers in one process, each with its own files.
//   node peer.js DIR KEYS BATCH GETS  -> {"put", "replicate", "get", "get_merged": {"s", "cpu_s"}, "peak_mb"}
'use strict'
const path = require('path')
const hyperdb = require('hyperdb')

const [, , dir, ...numbers] = process.argv
const [keys, batch, gets] = numbers.map(Number)
const die = err => { process.stderr.write(String(err && err.stack) + '\n'); process.exit(1) }
process.on('unhandledRejection', die)

function call (object, method, ...args) {
  return new Promise((resolve, reject) => {
    object[method](...args, (err, value) => err ? reject(err) : resolve(value))
  })
}

function sync (left, right) {
  return new Promise((resolve, reject) => {
    const streams = [left.replicate(), right.replicate()]
    let open = streams.length
    for (const stream of streams) {
      stream.on('error', reject)
      stream.on('end', () => { if (!--open) resolve() })
    }
    streams[0].pipe(streams[1]).pipe(streams[0])
  })
}

const seconds = async work => {
  const started = process.hrtime.bigint()
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return { s: Number(process.hrtime.bigint() - started) / 1e9, cpu_s: (user + system) / 1e6 }
}

async function main () {
  const first = hyperdb(path.join(dir, '0'), { valueEncoding: 'binary' })
  await call(first, 'ready')
  const dbs = [first]
  for (const name of ['1', '2']) {
    const db = hyperdb(path.join(dir, name), first.key, { valueEncoding: 'binary' })
    await call(db, 'ready')
    dbs.push(db)
    await call(first, 'authorize', db.local.key)
  }
  for (let round = 0; round < 2; round++) for (const db of dbs.slice(1)) await sync(first, db)
  const name = number => 'user/' + (number * 7919 % 1000003) + '/name'
  const value = number => Buffer.from('value ' + number)
  const put = await seconds(async () => {
    for (let writer = 0; writer < dbs.length; writer++) {
      for (let start = writer; start < keys; start += batch * dbs.length) {
        const changes = []
        for (let number = start; number < keys && changes.length < batch; number += dbs.length) {
          changes.push({ type: 'put', key: name(number), value: value(number) })
        }
        await call(dbs[writer], 'batch', changes)
      }
    }
  })
  const replicate = await seconds(async () => {
    for (let round = 0; round < 2; round++) for (const db of dbs.slice(1)) await sync(first, db)
  })
  const read = () => seconds(async () => {
    for (let count = 0; count < gets; count++) {
      const number = count * 104729 % keys
      const nodes = await call(first, 'get', name(number))
      if (nodes.length !== 1 || !nodes[0].value.equals(value(number))) die(new Error('wrong value of ' + name(number)))
    }
  })
  const get = await read()
  await call(first, 'put', 'merged', value(0))
  const merged = await read()
  const peak = process.resourceUsage().maxRSS / 1024
  process.stdout.write(JSON.stringify({ put, replicate, get, get_merged: merged, peak_mb: peak }) + '\n')
  process.exit(0)
}

main().catch(die)
