package browser

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"mamlog/cmd/mamlog/conformance"
)

// serveSite serves page.html with Converse.js on loopback and returns its URL.
func serveSite(t *testing.T) string {
	t.Helper()
	dist := installConverse(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "page.html") })
	mux.Handle("GET /dist/", http.StripPrefix("/dist/", http.FileServer(http.Dir(dist))))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// installConverse returns the directory with the files that browsers load. npm
// installs them once for each content of package-lock.json, and they stay in
// the user's cache.
func installConverse(t *testing.T) string {
	t.Helper()
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		cache = filepath.Join(cache, "mamlog-tests")
		err = os.MkdirAll(cache, 0o755)
	}
	if err != nil {
		cache = t.TempDir()
	}
	dist := filepath.Join(cache, fmt.Sprintf("converse-%x", sha256.Sum256(lock)))
	if _, err := os.Stat(dist); err == nil {
		return dist
	}
	dir, err := os.MkdirTemp(cache, "npm-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", filepath.Join(dir, "cache"))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("%s", out)
		conformance.Skip(t, "npm could not install Converse.js: %v", err)
	}
	// Renamed when complete: a test that runs at the same time sees all or nothing.
	err = os.Rename(filepath.Join(dir, "node_modules", "converse.js", "dist"), dist)
	if _, there := os.Stat(dist); there != nil {
		t.Fatal(err)
	}
	return dist
}
