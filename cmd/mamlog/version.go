package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"mamlog/log"
)

// buildVersion is what the build says of itself.
type buildVersion struct {
	module   string // of a release; "(devel)" in a checkout
	revision string // of version control, with "+changes"; may be empty
	time     string
}

func version() (v buildVersion) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return buildVersion{module: "unknown"}
	}
	v.module = info.Main.Version
	if v.module == "" {
		v.module = "(devel)"
	}
	changed := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.revision = s.Value[:min(12, len(s.Value))]
		case "vcs.time":
			v.time = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				changed = "+changes"
			}
		}
	}
	if v.revision != "" {
		v.revision += changed
	}
	return v
}

func (v buildVersion) String() string {
	if v.revision == "" || strings.Contains(v.module, strings.TrimSuffix(v.revision, "+changes")) {
		return v.module
	}
	return v.module + " " + v.revision
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of mamlog, of Go and of the log's format",
		Long:    "Print the version of mamlog, the commit it was built from, the version of Go, and\nthe version of the log's format. A store of a newer format is refused.",
		Example: "  mamlog version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version()
			fmt.Fprintf(a.out, "mamlog      %s\n", v.module)
			if v.revision != "" {
				fmt.Fprintf(a.out, "commit      %s, %s\n", v.revision, v.time)
			}
			fmt.Fprintf(a.out, "go          %s, %s/%s\n", strings.TrimPrefix(runtime.Version(), "go"), runtime.GOOS, runtime.GOARCH)
			fmt.Fprintf(a.out, "log format  %d\n", log.FormatVersion)
			return nil
		},
	}
}
