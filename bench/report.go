package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Report is what a run has found.
type Report struct {
	Command  string            `json:"command"`
	Began    time.Time         `json:"began"`
	Took     string            `json:"took"`
	Seed     uint64            `json:"seed"`
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Sections []Section         `json:"sections"`
	Notes    string            `json:"notes,omitempty"` // Markdown; what people found out about the figures
}

// Section is one part of a report.
type Section struct {
	ID     string  `json:"id"` // of the command, and of the files of its plots
	Title  string  `json:"title"`
	Text   string  `json:"text"` // Markdown
	Goals  []Goal  `json:"goals"`
	Tables []Table `json:"tables"`
	Plots  []Plot  `json:"plots"`
}

// Table is written as Markdown. The first column stands to the left, others to
// the right.
type Table struct {
	Title  string     `json:"title"`
	Header []string   `json:"header"`
	Rows   [][]string `json:"rows"`
}

// goals of all sections.
func (r Report) goals() (all []Goal) {
	for _, s := range r.Sections {
		all = append(all, s.Goals...)
	}
	return all
}

// Short are the names of the goals that were not reached.
func (r Report) Short() (names []string) {
	for _, g := range r.goals() {
		if g.Verdict() == "short" {
			names = append(names, g.Name)
		}
	}
	return names
}

// Write puts RESULTS.md, results.json and the plots into a directory.
func (r Report) Write(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "plots"), 0o755); err != nil {
		return err
	}
	if err := r.writeText(dir); err != nil {
		return err
	}
	for _, s := range r.Sections {
		for _, p := range s.Plots {
			if err := p.draw(filepath.Join(dir, "plots", s.ID+"-"+p.ID)); err != nil {
				return fmt.Errorf("draw %s: %w", p.Title, err)
			}
		}
	}
	return nil
}

func (r Report) writeText(dir string) error {
	j, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	var md strings.Builder
	r.Markdown(&md)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "results.json"), append(j, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(md.String()), 0o644),
	)
}

// Markdown writes the report as a page.
func (r Report) Markdown(w io.Writer) {
	fmt.Fprintf(w, "# What was measured\n\nWritten by `%s` in %s, begun at %s, seed %d.\n\n",
		r.Command, r.Took, r.Began.UTC().Format("2006-01-02 15:04 UTC"), r.Seed)
	m := r.Machine
	fmt.Fprintf(w, "%s, %d processors, %s of memory; stores on %s; %s, %s.\n\n", m.CPU, m.Processors, m.Memory, m.FileSystem, m.System, m.Kernel)
	var v []string
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		v = append(v, name+" "+r.Versions[name])
	}
	fmt.Fprintf(w, "Versions: %s.\n\n", strings.Join(v, ", "))
	fmt.Fprint(w, "Every ratio is of two things that were measured in turns in this run: the median of the rounds, and their spread.\n"+
		"Absolute figures belong to this machine at that hour.\n")
	if len(r.Sections) > 1 {
		fmt.Fprint(w, "\n## Goals\n")
		goalTable(r.goals(), true).markdown(w)
	}
	for _, s := range r.Sections {
		fmt.Fprintf(w, "\n## %s\n\n%s\n", s.Title, strings.TrimSpace(s.Text))
		if len(s.Goals) > 0 {
			goalTable(s.Goals, false).markdown(w)
		}
		for _, t := range s.Tables {
			t.markdown(w)
		}
		for i, p := range s.Plots {
			name := s.ID + "-" + p.ID
			switch { // two beside each other
			case i == 0:
				fmt.Fprint(w, "\n| | |\n|---|---|\n| ")
			case i%2 == 0:
				fmt.Fprint(w, " |\n| ")
			default:
				fmt.Fprint(w, " | ")
			}
			fmt.Fprintf(w, "![%s](plots/%s.png) [SVG](plots/%s.svg)", p.Title, name, name)
		}
		if len(s.Plots) > 0 {
			fmt.Fprintln(w, " |")
		}
	}
	if r.Notes != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(r.Notes))
	}
}

func goalTable(goals []Goal, only bool) Table {
	t := Table{Header: []string{"what", "measured", "spread", "goal", "", "against"}}
	for _, g := range goals {
		if only && g.Open {
			continue
		}
		t.Rows = append(t.Rows, []string{g.Name, g.Value(), g.Spread(), g.Wanted(), g.Verdict(), g.Against})
	}
	return t
}

func (t Table) markdown(w io.Writer) {
	if t.Title != "" {
		fmt.Fprintf(w, "\n**%s**\n", t.Title)
	}
	fmt.Fprintf(w, "\n| %s |\n|", strings.Join(t.Header, " | "))
	for i := range t.Header {
		if i == 0 {
			fmt.Fprint(w, "---|")
		} else {
			fmt.Fprint(w, "--:|")
		}
	}
	fmt.Fprintln(w)
	for _, row := range t.Rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
}
