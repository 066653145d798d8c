//go:build race

package main

import "os"

func init() {
	build = append(build, "-race")
	// The race detector lets a program sleep for a second before it exits, and
	// these tests run it more than a hundred times. A race still makes its exit
	// code 66, which no test wants.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}
