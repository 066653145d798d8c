package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestConfigCheck(t *testing.T) {
	s := newSite(t, "")
	s.run("", "config", "check").want(0, "archive_expires_after: 1w", "- test.example:")
	s.configure("archive_expire_after: 1w\nlog_level: loud\n")
	r := s.run("", "config", "check").want(1,
		s.config+`:4: unknown option "archive_expire_after"; did you mean archive_expires_after?`,
		s.config+`:5: log_level: this is "loud"; allowed is debug, info, warn or error`)
	if r.out != "" {
		t.Errorf("it prints a configuration too:\n%s", r.out)
	}
	s.run("", "serve").want(1, ":4: unknown option")
	if _, err := os.Stat(s.data); !os.IsNotExist(err) {
		t.Errorf("the refused configuration made a data directory: %v", err)
	}
	run(t, s.dir, "", "config", "check", "--config", filepath.Join(s.dir, "absent.yaml")).want(1, "absent.yaml", "--config names another")
}

func TestVersionAndCompletion(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "", "version").want(0, "mamlog ", "go ", "log format  1")
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		run(t, dir, "", "completion", shell).want(0, "mamlog")
	}
	run(t, dir, "", "__complete", "prefs", "set", "x", "--default", "").want(0, "always", "never", "roster")

	s := newSite(t, "")
	s.serve()
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	run(t, s.dir, "", "__complete", "--config", s.config, "query", "jul").want(0, "juliet@test.example")
	run(t, s.dir, "", "__complete", "--config", s.config, "check", "--store", "").want(0, "main", "archive")
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "", "--help").want(0, "Exit codes")
	run(t, dir, "").want(0, "Exit codes")
	run(t, dir, "", "frobnicate").want(2, "unknown command", "--help")
	run(t, dir, "", "user", "frobnicate").want(2)
	run(t, dir, "", "query", "--frobnicate").want(2, "unknown flag")
	run(t, dir, "", "query", "a@b", "c@d").want(2, "too many arguments")
}

// TestHelp: every command says what it does at length, with an example, in lines
// that fit a terminal.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Short == "" || c.Long == "" {
			t.Errorf("%s has no help", c.CommandPath())
		}
		if c.Example == "" && !c.HasSubCommands() {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 {
				t.Errorf("%s: a line has %d characters: %s", c.CommandPath(), n, line)
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s has no help", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&app{in: os.Stdin, out: &output{file: os.Stdout}, err: os.Stderr}))
}

func TestParseTime(t *testing.T) {
	for _, c := range []struct {
		in, want string
		end      bool
	}{
		{"2026-11-22", "2026-11-22T00:00:00.000Z", false},
		{"2026-11-22", "2026-11-22T23:59:59.999Z", true},
		{"2026-11-22T20:27:03Z", "2026-11-22T20:27:03.000Z", true},
		{"2026-11-22t20:27:03.5z", "2026-11-22T20:27:03.500Z", false},
		{"2026-11-22 20:27:03+01:00", "2026-11-22T19:27:03.000Z", false},
	} {
		got, err := parseTime(c.in, c.end)
		if err != nil || stamp(got) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.in, stamp(got), err, c.want)
		}
	}
	for _, s := range []string{"", "yesterday", "20:00", "2026-13-01", "2026-11-22T20:27:03"} {
		if got, err := parseTime(s, false); err == nil {
			t.Errorf("%q is taken for %s", s, got.Format(time.RFC3339))
		}
	}
}

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"plain — ünï":      "plain — ünï",
		"a\x1b[2Jb":        "a␛[2Jb",
		"a\nb\tc\x7f":      "a␊b c␡",
		"\u009b31m\u202ex": "\ufffd31m\ufffdx",
		"\xff":             "\ufffd",
	} {
		if got := harmless(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{{"short", 10, "short"}, {"exactly 10", 10, "exactly 10"}, {"more than 10", 10, "more than…"}, {"漢字漢字", 5, "漢字…"}, {"漢字漢字", 6, "漢字…"}} {
		if got := cut(c.in, c.width); got != c.want {
			t.Errorf("%q in %d cells is %q, want %q", c.in, c.width, got, c.want)
		}
	}
}
