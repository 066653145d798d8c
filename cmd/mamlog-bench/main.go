// Command mamlog-bench measures mamlog; see package bench.
package main

import (
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mamlog/bench"
)

func main() {
	root := &cobra.Command{
		Use:           "mamlog-bench",
		Short:         "Measure mamlog",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(pages())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "mamlog-bench:", err)
		os.Exit(1)
	}
}

func pages() *cobra.Command {
	var o bench.PagesOptions
	var profile string
	c := &cobra.Command{
		Use:   "pages",
		Short: "Compare what a page costs in a small and in a large archive",
		Long: `Fill a small and a large archive, ask both for the same kinds of pages in
turns, and print the ratio of the costs, with its spread.`,
		Example: "  mamlog-bench pages\n  mamlog-bench pages --large 100000 --rounds 9",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if term.IsTerminal(int(os.Stderr.Fd())) {
				bar := progressbar.Default(int64(o.Large), "filling the archives")
				o.Progress = func(n int) { _ = bar.Set(n) }
			}
			if profile != "" {
				f, err := os.Create(profile)
				if err != nil {
					return err
				}
				defer f.Close()
				if err := pprof.StartCPUProfile(f); err != nil {
					return err
				}
				defer pprof.StopCPUProfile()
			}
			_, err := bench.RunPages(c.OutOrStdout(), o)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "", "where to put the archives (default: the system's directory for temporary files)")
	f.IntVar(&o.Small, "small", 1000, "messages in the small archive")
	f.IntVar(&o.Large, "large", 1_000_000, "messages in the large archive")
	f.IntVar(&o.Rounds, "rounds", 7, "rounds, in turns")
	f.IntVar(&o.PerRound, "pages", 200, "pages of each kind a round")
	f.Uint64Var(&o.Seed, "seed", 1, "of the messages")
	f.StringVar(&profile, "cpuprofile", "", "write a CPU profile to this file")
	return c
}
