package bench

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func sampleReport() Report {
	return Report{
		Command: "mamlog-bench sample", Began: time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC), Took: "1m2s", Seed: 1,
		Machine:  Machine{CPU: "A processor", Processors: 2, Memory: "4.0 GiB", FileSystem: "ext4", Kernel: "Linux 6.1", System: "Debian"},
		Versions: map[string]string{"prosody": "0.12.3", "Go": "go1.26"},
		Notes:    "## Limits\n\nWhat is short, and why.\n",
		Sections: []Section{
			{
				ID: "first", Title: "The first part", Text: "What was done.",
				Goals: []Goal{
					ratio("ours ÷ theirs", []float64{10, 20, 30}, []float64{10, 10, 10}, "theirs", 2, false),
					ratio("ours ÷ others'", []float64{10, 20, 30}, []float64{10, 10, 10}, "others", 2.5, false),
					told(ratio("by the way", []float64{10}, []float64{3}, "theirs", 0, false)),
					{Name: "memory", Unit: "MB", Rounds: []float64{123.4}, Want: 400, AtMost: true},
				},
				Tables: []Table{{Title: "Figures", Header: []string{"", "a second"}, Rows: [][]string{{"ours", "20.0"}, {"theirs", "10.0"}}}},
				Plots: []Plot{
					{ID: "line", Title: "A line", X: "messages", Y: "a second", LogX: true, LogY: true,
						Series: []Series{{Name: "ours", Ours: true, X: []float64{1, 10, 100}, Y: []float64{5, 50, 40}}, {Name: "nobody"}}},
					{ID: "point", Title: "A point", X: "x", Y: "y", Series: []Series{{Name: "ours", X: []float64{3}, Y: []float64{3}}}},
					{ID: "nothing", Title: "Nothing", X: "x", Y: "y", LogX: true, LogY: true, Series: []Series{{Name: "ours", X: []float64{0}, Y: []float64{0}}}},
				},
			},
			{ID: "second", Title: "The second part", Text: "More.", Tables: []Table{{Header: []string{"", "n"}, Rows: [][]string{{"a", "1"}}}}},
		},
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	r := sampleReport()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.md")
	if *rewrite {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the page is not that of %s:\n%s", golden, got)
	}
	if err := Check(dir); err != nil {
		t.Error(err)
	}
	if short := r.Short(); len(short) != 1 || short[0] != "ours ÷ others'" {
		t.Errorf("short is %q", short)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	right := t.TempDir()
	if err := sampleReport().Write(right); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		report func(*Report)
		files  func(*testing.T, string)
		want   string
	}{
		"no figure":      {report: func(r *Report) { r.Sections[0].Goals[0].Rounds = nil }, want: "not measured"},
		"a name twice":   {report: func(r *Report) { r.Sections[0].Goals[1].Name = r.Sections[0].Goals[0].Name }, want: "told twice"},
		"a ragged table": {report: func(r *Report) { r.Sections[0].Tables[0].Rows[0] = []string{"a"} }, want: "1 cells under 2 heads"},
		"an empty table": {report: func(r *Report) { r.Sections[0].Tables[0].Rows = nil }, want: "is empty"},
		"an empty part":  {report: func(r *Report) { r.Sections[1].Tables = nil }, want: "says nothing"},
		"no parts":       {report: func(r *Report) { r.Sections = nil }, want: "no section"},
		"a page of another run": {files: func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "RESULTS.md"), "2.00", "3.00")
		}, want: "is not what"},
		"half a picture": {files: func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "plots", "first-line.png"), 500); err != nil {
				t.Fatal(err)
			}
		}, want: "first-line.png"},
		"half a drawing": {files: func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "plots", "first-line.svg"), "</svg>", "")
		}, want: "first-line.svg"},
		"no drawing": {files: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "plots", "first-point.svg")); err != nil {
				t.Fatal(err)
			}
		}, want: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(right)); err != nil {
				t.Fatal(err)
			}
			r := sampleReport()
			if c.report != nil {
				c.report(&r)
				if err := r.writeText(dir); err != nil {
					t.Fatal(err)
				}
			} else {
				c.files(t, dir)
			}
			if err := Check(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the check says %v", err)
			}
		})
	}
}

func edit(t *testing.T, path, from, to string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), from) {
		t.Fatalf("%s does not hold %s", path, from)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A figure that is none must not be written as one: JSON has no words for it.
func TestNoFigureIsNoReport(t *testing.T) {
	r := sampleReport()
	r.Sections[0].Goals[0].Rounds[0] = math.Inf(1)
	if err := r.Write(t.TempDir()); err == nil {
		t.Error("an infinite ratio was written")
	}
}
