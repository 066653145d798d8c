package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestSignalsStopTheServer(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		s := newSite(t, "")
		r := s.serve()
		if code := r.stop(signal); code != 0 {
			t.Errorf("%v: exit code %d, want 0:\n%s", signal, code, r.log)
		}
		if !strings.Contains(r.log.String(), `"msg":"stopped"`) {
			t.Errorf("%v: it does not say that it stopped:\n%s", signal, r.log)
		}
		if _, err := os.Lstat(filepath.Join(s.data, "admin.sock")); !os.IsNotExist(err) {
			t.Errorf("%v: the socket is still there: %v", signal, err)
		}
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	s := newSite(t, "")
	r := s.serve()
	pid := strconv.Itoa(r.cmd.Process.Pid)
	s.run("", "serve").want(1, "in use by process "+pid, "Stop it first")
	s.run("x\n", "user", "add", "juliet@test.example").want(0) // the first one still answers

	// A command whose configuration names another socket finds the store locked.
	s.configure("admin: {socket: " + filepath.Join(s.dir, "other.sock") + "}\n")
	s.run("", "user", "list").want(1, "in use by process "+pid, "no server answers at "+filepath.Join(s.dir, "other.sock"))
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := newSite(t, "")
	s.run("", "serve", "--listen", l.Addr().String()).want(1, l.Addr().String(), "choose another port", "--listen")
	s.run("", "serve", "--websocket-listen", l.Addr().String()).want(1, l.Addr().String(), "choose another port", "--websocket-listen")
	s.configure("metrics: {listen: \"" + l.Addr().String() + "\"}\n")
	s.run("", "serve").want(1, l.Addr().String(), "metrics.listen in "+s.config)
	s.run("", "serve", "--listen", "0.0.0.0:0").want(2, "allow_plaintext")
	s.run("", "serve", "--listen", "nowhere").want(2, "HOST:PORT")
}

func TestStaleSocket(t *testing.T) {
	s := newSite(t, "")
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	r := s.serve()
	r.stop(syscall.SIGKILL)
	socket := filepath.Join(s.data, "admin.sock")
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("the killed server left no socket, so this tests nothing: %v", err)
	}
	s.run("", "user", "list").want(0, "juliet@test.example")
	s.serve()
	info, err := os.Lstat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has the mode %v, %v", info.Mode(), err)
	}
	s.run("", "user", "list").want(0, "juliet@test.example")
}

func TestSocketInTheWay(t *testing.T) {
	s := newSite(t, "")
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(s.data, "admin.sock")
	if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("", "serve").want(1, socket, "not a socket")
	if b, _ := os.ReadFile(socket); string(b) != "precious" {
		t.Errorf("the file is overwritten: %q", b)
	}
	os.Remove(socket)
	os.Chmod(s.data, 0o777)
	s.run("", "serve").want(1, "others can write into the directory")
}

// TestLongDataDir: a socket's name is short for the kernel, a path isn't.
func TestLongDataDir(t *testing.T) {
	s := newSite(t, "")
	s.data = filepath.Join(s.dir, strings.Repeat("long/", 40), "data")
	s.configure("")
	s.serve()
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	s.run("", "user", "list").want(0, "juliet@test.example")
}

// metrics are what the admin socket shows.
func (s *site) metrics() string {
	s.t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(s.data, "admin.sock"))
	}}}
	return get(s.t, &c, "http://mamlog/metrics")
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, r.Status, err)
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	s := newSite(t, "metrics: {listen: \"127.0.0.1:0\"}\n")
	r := s.serve()
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	tcp := get(t, http.DefaultClient, "http://"+r.ready["metrics"].(string)+"/metrics")
	for _, text := range []string{tcp, s.metrics()} {
		for _, want := range []string{
			`mamlog_store_memory{store="archive"} 0`,
			`mamlog_log_records_total{store="main"} 2`, // the policy and the account
			`mamlog_projections_lag_seconds{store="main"} 0`,
			"mamlog_build_info{", "go_goroutines ", "process_open_fds ",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
}

func TestMemoryStore(t *testing.T) {
	s := newSite(t, "storage: {archive: memory}\n")
	s.run("x\n", "user", "add", "juliet@test.example").want(0)
	s.run("", "query", "juliet@test.example").want(0, "kept in its memory only", "no messages")
	r := s.serve()
	if !strings.Contains(s.metrics(), `mamlog_store_memory{store="archive"} 1`) {
		t.Errorf("no metric says that the store is in memory:\n%s", s.metrics())
	}
	r.stop(syscall.SIGTERM)
	if !strings.Contains(r.log.String(), `"level":"warn"`) || !strings.Contains(r.log.String(), "all of them are lost when the server stops") {
		t.Errorf("no warning in the log:\n%s", r.log)
	}
	if _, err := os.Stat(filepath.Join(s.data, "stores")); !os.IsNotExist(err) {
		t.Errorf("there is something on disk: %v", err)
	}
}

func TestFallback(t *testing.T) {
	s := newSite(t, "")
	s.record(conversation()...)
	damage(t, filepath.Join(s.data, "stores", "archive", "log"))

	s.run("", "serve").want(1, "open the store archive", "fallback: memory")
	s.configure("storage: {fallback: memory}\n")
	s.run("", "query", "juliet@test.example").want(1, "open the store archive") // falling back is for serving only
	r := s.serve()
	if m := s.metrics(); !strings.Contains(m, `mamlog_store_fallback{store="archive"} 1`) || !strings.Contains(m, `mamlog_store_memory{store="archive"} 1`) {
		t.Errorf("no metric says so:\n%s", m)
	}
	r.stop(syscall.SIGTERM)
	if !strings.Contains(r.log.String(), `"level":"error"`) || !strings.Contains(r.log.String(), "THE STORE CAN'T BE OPENED") {
		t.Errorf("no error in the log:\n%s", r.log)
	}
}

// damage makes a Pebble store in dir impossible to open.
func damage(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifest in %s: %v", dir, err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("this is no manifest, and it is longer than a header"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDemo(t *testing.T) {
	dir := t.TempDir()
	ports := []string{"--listen", "127.0.0.1:0", "--websocket-listen", "127.0.0.1:0"}
	r := serve(t, dir, append([]string{"serve", "--demo"}, ports...)...)
	addr := r.ready["c2s"].(string)
	for _, u := range []string{"juliet", "romeo"} {
		if !login(t, addr, "localhost", u, demoPassword) {
			t.Errorf("%s can't log in", u)
		}
	}
	demo := []string{"--config", demoConfig}
	run(t, dir, "", append([]string{"query", "juliet@localhost"}, demo...)...).want(0, "no messages")
	run(t, dir, "", append([]string{"user", "delete", "romeo@localhost"}, demo...)...).want(0)
	if code := r.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// The configuration works from anywhere.
	run(t, t.TempDir(), "", "query", "juliet@localhost", "--config", filepath.Join(dir, demoConfig)).want(0, "no messages")
	// A second start makes no accounts anew.
	serve(t, dir, append([]string{"serve", "--demo"}, ports...)...)
	if got := run(t, dir, "", append([]string{"user", "list"}, demo...)...).want(0).out; got != "juliet@localhost\n" {
		t.Errorf("after the second start there are %q", got)
	}
	run(t, dir, "", "serve", "--demo", "--config", demoConfig).want(2, "--demo has a configuration of its own")
}
