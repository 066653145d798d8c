// Command mamlog-bench measures mamlog; see package bench.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mamlog/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(os.Stdout, os.Stderr).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mamlog-bench:", err)
		os.Exit(1)
	}
}

// run is what all commands have in common.
type run struct {
	options bench.Options
	out     string // directory of the report; empty: none
	notes   string // file with the last section of the report; empty: none
	profile string
	quiet   bool

	stdout, stderr io.Writer
}

func command(stdout, stderr io.Writer) *cobra.Command {
	r := &run{options: bench.Normal(), stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "mamlog-bench",
		Short: "Measure mamlog against the bare engine, Prosody and ejabberd",
		Long: `Measure mamlog against the bare engine, Prosody and ejabberd. What matters is told as
the ratio of two things that were measured in turns. A report is RESULTS.md, results.json,
and plots.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	f := root.PersistentFlags()
	f.StringVar(&r.out, "out", "", "write the report to this directory; else only its page is printed")
	f.StringVar(&r.notes, "notes", "", "end the report with this file, in Markdown: what limits the figures, and why")
	f.StringVar(&r.profile, "cpuprofile", "", "write a CPU profile of this process to this file")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "don't tell what is being measured")
	f.StringVar(&r.options.Dir, "dir", "", "where to put the stores that are measured (default: the system's directory for temporary files)")
	f.IntVar(&r.options.Rounds, "rounds", r.options.Rounds, "rounds, in turns")
	f.DurationVar(&r.options.Time, "time", r.options.Time, "how long one measurement of throughput takes; others are shorter")
	f.Uint64Var(&r.options.Seed, "seed", r.options.Seed, "of the messages")
	f.IntVar(&r.options.Small, "small", r.options.Small, "messages in the small archive, in process")
	f.IntVar(&r.options.Large, "large", r.options.Large, "messages in the large archive, in process")
	f.IntVar(&r.options.Owners, "owners", r.options.Owners, "users who share the messages of the part life")
	f.IntSliceVar(&r.options.Sizes, "sizes", r.options.Sizes, "messages in the archives that are paged through over XMPP")
	f.IntVar(&r.options.Pairs, "pairs", r.options.Pairs, "senders, each with a recipient")
	f.IntVar(&r.options.Window, "window", r.options.Window, "messages of a sender under way")
	f.IntSliceVar(&r.options.Pagers, "pagers", r.options.Pagers, "clients that page at once")

	for _, p := range append(bench.Parts, bench.HostPart) {
		c := &cobra.Command{
			Use: p.Name, Short: "Measure " + p.About, Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				_, err := r.measure(c, []bench.Part{p})
				return err
			},
		}
		if p.Name == "attach" {
			c.Flags().StringArrayVar(&r.options.Contenders, "contender", nil, "only this one, by its name in the report; may be given more than once")
			c.Flags().StringSliceVar(&r.options.Measures, "measure", nil, "only these of throughput, latency and pages")
		}
		root.AddCommand(c)
	}
	root.AddCommand(&cobra.Command{
		Use: "all", Short: "Measure everything (under an hour)", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := r.measure(c, bench.Parts)
			return err
		},
	}, quick(r), check(r))
	return root
}

// commandLine is what was asked for, without what has no part in the figures.
func commandLine(c *cobra.Command) string {
	line := c.CommandPath()
	c.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "out", "notes", "quiet", "cpuprofile", "dir": // the report names the file system
			return
		}
		value := strings.Trim(f.Value.String(), "[]") // of a list
		if strings.Contains(value, " ") {
			value = strconv.Quote(value)
		}
		line += " --" + f.Name + " " + value
	})
	return line
}

// measure makes a report and writes it. What was measured before a part failed is
// not lost: the report then says that it is not whole.
func (r *run) measure(c *cobra.Command, parts []bench.Part) (report bench.Report, err error) {
	ctx := c.Context()
	began := time.Now()
	if !r.quiet {
		r.options.Progress = func(what string) {
			fmt.Fprintf(r.stderr, "%6s  %s\n", time.Since(began).Round(time.Second), what)
		}
	}
	if r.profile != "" {
		f, err := os.Create(r.profile)
		if err != nil {
			return report, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return report, err
		}
		defer pprof.StopCPUProfile()
	}
	b, err := bench.New(r.options)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	report, failed := b.Run(ctx, commandLine(c), parts)
	if failed != nil {
		if len(report.Sections) == 0 {
			return report, failed
		}
		report.Notes = fmt.Sprintf("## This report is not whole\n\nThe run ended early, and what it did not come to was not measured: %v.\n", failed)
		defer func() { err = errors.Join(failed, err) }()
	} else if r.notes != "" {
		text, err := os.ReadFile(r.notes)
		if err != nil {
			return report, err
		}
		report.Notes = string(text)
	}
	if r.out == "" {
		report.Markdown(r.stdout)
		return report, nil
	}
	return report, report.Write(r.out)
}

func quick(r *run) *cobra.Command {
	return &cobra.Command{
		Use:   "quick",
		Short: "Print the ratios to the bare engine, and fail if one is short of its goal",
		Long: `Print the ratios to the bare engine and those of a large archive to a small one, one a
line: name, ratio, goal, ok or short. The exit status is not 0 if one is short. It takes
less than three minutes.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("time") {
				r.options.Time = time.Second
			}
			lines := r.stdout
			if r.out == "" {
				r.stdout = io.Discard
			}
			report, err := r.measure(c, bench.Parts[:1])
			if err != nil {
				return err
			}
			if err := printGoals(lines, report); err != nil {
				return err
			}
			if short := report.Short(); len(short) > 0 {
				return fmt.Errorf("%d of the goals are short: %s", len(short), strings.Join(short, "; "))
			}
			return nil
		},
	}
}

func printGoals(w io.Writer, r bench.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range r.Sections {
		for _, g := range s.Goals {
			fmt.Fprintln(t, g)
		}
	}
	return t.Flush()
}

func check(r *run) *cobra.Command {
	var only []string
	c := &cobra.Command{
		Use:   "check",
		Short: "Run the whole benchmark with little of everything, and check the form of what it writes",
		Long: `Run the whole benchmark with little of everything, and check that its report is well
formed. The ratios are printed, and mean nothing: with so little no figure is asserted, and
none can be wrong.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			tiny := bench.Tiny()
			tiny.Dir, tiny.Seed = r.options.Dir, r.options.Seed
			r.options = tiny
			if r.out == "" {
				dir, err := os.MkdirTemp("", "mamlog-bench-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				r.out = dir
			}
			var parts []bench.Part
			for _, p := range bench.Parts {
				if len(only) == 0 || slices.Contains(only, p.Name) {
					parts = append(parts, p)
				}
			}
			report, err := r.measure(c, parts)
			if err != nil {
				return err
			}
			return errors.Join(printGoals(r.stdout, report), bench.Check(r.out))
		},
	}
	c.Flags().StringSliceVar(&only, "only", nil, "only these parts")
	return c
}
