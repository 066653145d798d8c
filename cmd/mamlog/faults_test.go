package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	adminv1 "mamlog/admin/v1"
	"mamlog/cmd/mamlog/conformance"
	"mamlog/log"
)

// TestEmptyOptions: an option without a value never means all there is.
func TestEmptyOptions(t *testing.T) {
	s := newSite(t, "")
	s.record(conversation()...)
	const juliet = "juliet@test.example"
	for _, args := range [][]string{
		{"--last", "0"}, {"--max", "0"}, {"--last", "x"}, {"--max", "-1"}, {"--last", "1.5"}, {"--last", ""},
	} {
		s.run("", append([]string{"query", juliet}, args...)...).want(2, "it must be a whole number of at least 1")
	}
	s.run("", "query", juliet, "--last", "99999999999999999999").want(2, "too large")
	for _, option := range []string{"--with", "--after", "--before", "--start", "--end"} {
		if r := s.run("", "query", juliet, option, "").want(2, option); r.out != "" {
			t.Errorf("%s: it prints %q", option, r.out)
		}
	}
	s.run("", "query", juliet, "--last", "1", "--max", "1").want(2, "--last and --max can't be given together")
	s.run("", "prefs", "set", juliet, "--default", "").want(2, "allowed is always, never or roster")
	s.run("", "prefs", "set", juliet, "--always", "", "--always", "a@b.example").want(2, "one of the JIDs is empty")
	s.run("", "check", "--store", "").want(2, "empty")
	s.run("", "user", "list", "").want(2, "empty")
}

func TestNewStoreIsTold(t *testing.T) {
	s := newSite(t, "")
	s.data = "data" // relative
	s.configure("")
	s.run("x\n", "user", "add", "juliet@test.example").want(0, "made a new store in "+filepath.Join(s.dir, "data"))
	if r := s.run("x\n", "user", "add", "romeo@test.example").want(0); strings.Contains(r.err, "new store") {
		t.Errorf("there was one already:\n%s", r.err)
	}
}

// TestDamagedStoreOfOthers: commands open what they need and no more.
func TestDamagedStoreOfOthers(t *testing.T) {
	s := newSite(t, "")
	text := "data_dir: " + s.data + "\nhosts: [test.example, {other.example: {archive_store: other}}]\nc2s: {listen: \"127.0.0.1:0\"}\n"
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("x\n", "user", "add", "romeo@other.example").want(0)
	s.record(conversation()...)
	damage(t, filepath.Join(s.data, "stores", "other", "log"))
	s.run("", "user", "list").want(0, "romeo@other.example")
	s.run("", "query", "juliet@test.example", "--last", "1").want(0, "note to self")
	s.run("", "prefs", "get", "juliet@test.example").want(0, "default  always")
	s.run("", "check", "--store", "archive").want(0, "archive: ok")
	s.run("", "rebuild", "--store", "main").want(0, "main: rebuilt")
	for _, args := range [][]string{{"query", "romeo@other.example"}, {"check"}, {"check", "--store", "other"}} {
		s.run("", args...).want(1, "open the store other", "backup", "fallback: memory")
	}
	s.run("", "query", "romeo@nowhere.example").want(4, "none of this server's hosts")
}

func TestServerWentAway(t *testing.T) {
	for _, cause := range []error{io.ErrUnexpectedEOF, syscall.ECONNRESET} {
		err := failed(connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("protocol error: incomplete envelope: %w", cause)))
		var f *failure
		if !errors.As(err, &f) || f.code != exitFailed || !strings.HasPrefix(err.Error(), "the server went away") {
			t.Errorf("%v becomes %#v", cause, err)
		}
	}
}

func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		conformance.Skip(t, "this system has no /dev/full: %v", err)
	}
	defer full.Close()
	s := newSite(t, "")
	s.record(conversation()...)
	for _, args := range [][]string{
		{"check"}, {"rebuild"}, {"config", "check"}, {"version"},
		{"prefs", "get", "juliet@test.example"}, {"query", "juliet@test.example"},
	} {
		c := exec.Command(binary, append(args, "--config", s.config)...)
		c.Stdout = full
		var errs strings.Builder
		c.Stderr = &errs
		c.Run()
		if code := c.ProcessState.ExitCode(); code != exitFailed || strings.Count(errs.String(), "no space left") != 1 {
			t.Errorf("%v: exit code %d, and it says %q", args, code, errs.String())
		}
	}
}

func TestBlankAndRightToLeft(t *testing.T) {
	if got := firstLine(&adminv1.Message{Body: " \n\t", Reason: log.Reason_REASON_BODY}); got != "[blank text]" {
		t.Errorf("a blank body is shown as %q", got)
	}
	if got := isolated("shalom"); got != "shalom" {
		t.Errorf("got %q", got)
	}
	if got := isolated("\u05e9\u05dc"); got != "\u2068\u05e9\u05dc\u2069" {
		t.Errorf("got %q", got)
	}
	if got := harmless("a\u200eb\u061cc\U000e0041"); got != "a\ufffdb\ufffdc\ufffd" {
		t.Errorf("got %q", got)
	}
	if got := string(escaped([]byte("\U000e0041"), appendJSONEscape)); got != `\udb40\udc41` {
		t.Errorf("got %s", got)
	}
}
