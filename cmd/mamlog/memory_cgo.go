//go:build cgo

package main

/*
#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>
static void giveBack(void) { malloc_trim(0); }
#else
static void giveBack(void) {}
#endif
*/
import "C"

import (
	"context"
	"fmt"
	"os"
	"time"
)

// keepMemory keeps what the process has resident near to what it uses, until ctx
// ends. The engine's blocks and memtables lie outside Go's heap, cacheSize bytes of
// them at most. Blocks are of all sizes, so that glibc's heaps come to have holes
// that no new block fits into, of half the size of the cache and more. When the
// process has grown by a sixteenth of the cache, the pages in the holes go back to
// the system.
func keepMemory(ctx context.Context, cacheSize int64) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	least := resident()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := resident()
		if now > least+cacheSize/16 {
			C.giveBack()
			least = resident()
		}
		least = min(least, now)
	}
}

// resident is how much memory the process has, in bytes; 0 where the system does
// not tell, and then nothing is given back.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
