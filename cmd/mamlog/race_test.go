//go:build race

package main

func init() { build = append(build, "-race") }
