// Package disk keeps a store alive on a disk that takes no writes.
//
// The storage engine ends the process when it can't write its write-ahead log or
// its manifest. An FS under it makes such a write wait instead, and tries it again
// until it succeeds, so that the engine never sees the failure: readers go on,
// and whoever appends is told to stop meanwhile, by the report function. What was
// written but not yet synced is written once more after a failed sync, which may
// have dropped it. Failed writes of tables, which the engine takes back and tries
// again by itself, pass through, and are reported too.
//
// It also watches the free space, and reports before the last of it is gone.
//
// What writes tables takes turns, so that those who wait for an answer find a
// processor free; and what is removed gives its space back little by little, since to
// do so keeps some disks from all else.
//
// Nothing is ever reported as written or synced that was not.
package disk
