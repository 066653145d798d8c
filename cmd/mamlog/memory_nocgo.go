//go:build !cgo

package main

import (
	"context"
	"os"
	"runtime/debug"
)

// keepMemory keeps what the process has resident near to what it uses. Without cgo
// the engine's blocks and memtables lie in Go's heap, which by itself would let as
// much garbage come together as all of them take. Who sets GOGC or GOMEMLIMIT
// knows better.
func keepMemory(context.Context, int64) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(25)
	}
}
