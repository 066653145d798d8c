package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/cmd/mamlog/config"
	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// binary is the program, built once.
var binary string

// build makes it, with the race detector where the tests have it.
var build = []string{"build"}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "mamlog")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "mamlog")
		if out, err := exec.Command("go", append(build, "-o", binary, ".")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// site is a configuration with its data, and maybe a server that runs on it.
type site struct {
	t      *testing.T
	dir    string
	config string
	data   string
}

// newSite writes a configuration; more is added to the least there can be.
func newSite(t *testing.T, more string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, dir: dir, config: filepath.Join(dir, "mamlog.yaml"), data: filepath.Join(dir, "data")}
	s.configure(more)
	return s
}

func (s *site) configure(more string) {
	s.t.Helper()
	text := fmt.Sprintf("data_dir: %s\nhosts: [test.example]\nc2s: {listen: \"127.0.0.1:0\", allow_plaintext: true}\n%s", s.data, more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// result is what a run of the program left.
type result struct {
	t        *testing.T
	args     []string
	out, err string
	code     int
}

// run runs a command on the site with the given standard input.
func (s *site) run(stdin string, args ...string) *result {
	s.t.Helper()
	return run(s.t, s.dir, stdin, append(args, "--config", s.config)...)
}

func run(t *testing.T, dir, stdin string, args ...string) *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	c.Dir = dir
	c.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("mamlog %v: %v", args, err)
	}
	return &result{t, args, out.String(), errs.String(), c.ProcessState.ExitCode()}
}

// want fails unless the command ended with code and printed each of words,
// wherever.
func (r *result) want(code int, words ...string) *result {
	r.t.Helper()
	all := r.out + r.err
	for _, w := range words {
		if !strings.Contains(all, w) {
			r.t.Errorf("mamlog %v: no %q in what it printed", r.args, w)
		}
	}
	if r.code != code {
		r.t.Errorf("mamlog %v: exit code %d, want %d", r.args, r.code, code)
	}
	if r.t.Failed() {
		r.t.Fatalf("mamlog %v printed:\n%s%s", r.args, r.out, r.err)
	}
	return r
}

// running is a server that serves.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	ready map[string]any // the log line that says so
	log   *bytes.Buffer  // complete when the process has ended
	ended chan struct{}
}

// serve starts the server and returns when it serves.
func (s *site) serve(args ...string) *running {
	s.t.Helper()
	return serve(s.t, s.dir, append([]string{"serve", "--config", s.config}, args...)...)
}

func serve(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command(binary, args...), log: new(bytes.Buffer), ended: make(chan struct{})}
	r.cmd.Dir = dir
	pipe, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan map[string]any, 1)
	go func() {
		defer close(r.ended)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			fmt.Fprintln(r.log, lines.Text())
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) == nil && line["msg"] == "serving" {
				serving <- line
			}
		}
	}()
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		<-r.ended
		r.cmd.Wait()
	})
	select {
	case r.ready = <-serving:
	case <-r.ended:
		t.Fatalf("the server ended at once:\n%s", r.log)
	case <-time.After(time.Minute):
		t.Fatal("the server does not serve after a minute")
	}
	return r
}

// stop sends a signal and returns the exit code.
func (r *running) stop(signal syscall.Signal) int {
	r.t.Helper()
	if err := r.cmd.Process.Signal(signal); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		r.t.Fatalf("the server still runs 20 s after %v", signal)
	}
	r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

// record puts messages into the archives of a stopped store, each given as
// sender, recipient and body, and waits until they are durable.
func (s *site) record(messages ...[3]string) {
	s.t.Helper()
	c, err := config.Load(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	st, err := openStores(c, openOptions{logger: zap.NewNop(), create: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			s.t.Error(err)
		}
	}()
	a, err := st.archive(s.t.Context(), zap.NewNop(), nil, true)
	if err != nil {
		s.t.Fatal(err)
	}
	done := make(chan xep0313.Delivery, len(messages))
	for i, m := range messages {
		e := stanza.New(stanza.NSClient, "message", "type", "chat", "from", m[0], "to", m[1], "id", fmt.Sprintf("m%d", i)).
			Add(stanza.New(stanza.NSClient, "body").AddText(m[2]))
		err := a.Record(xep0313.Message{
			Stanza: e, From: jid.MustParse(m[0]), To: jid.MustParse(m[1]), FromLocal: true, ToLocal: true,
		}, func(d xep0313.Delivery) { done <- d })
		if err != nil {
			s.t.Fatal(err)
		}
	}
	for range messages {
		if d := <-done; d.Err != nil {
			s.t.Fatal(d.Err)
		}
	}
}
