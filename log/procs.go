package log

import (
	"os"
	"runtime"
)

// fewestProcs are enough for two compactions, a flush and somebody who waits.
const fewestProcs = 4

// EnsureProcs raises GOMAXPROCS to four on a machine with fewer processors, unless the
// environment sets it: the engine works in the background for milliseconds at a time,
// and the system lets a writer that wakes up go first, which Go's scheduler does not.
// Programs with a log call it at their start.
func EnsureProcs() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < fewestProcs {
		runtime.GOMAXPROCS(fewestProcs)
	}
}
