package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Check reads what Write has written, and says what is wrong with its form. It does not
// look at what the figures are.
func Check(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		return err
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("results.json: %w", err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		return err
	}
	var again strings.Builder
	r.Markdown(&again)
	var errs []error
	if again.String() != string(md) {
		errs = append(errs, errors.New("RESULTS.md is not what results.json says"))
	}
	if len(r.Sections) == 0 {
		errs = append(errs, errors.New("the report has no section"))
	}
	names := make(map[string]bool)
	for _, s := range r.Sections {
		if len(s.Goals) == 0 && len(s.Tables) == 0 {
			errs = append(errs, fmt.Errorf("%s: it says nothing", s.ID))
		}
		for _, g := range s.Goals {
			switch {
			case names[g.Name]:
				errs = append(errs, fmt.Errorf("%s: told twice", g.Name))
			case len(g.Rounds) == 0:
				errs = append(errs, fmt.Errorf("%s: not measured", g.Name))
			}
			names[g.Name] = true
			for _, v := range g.Rounds {
				if !finite(v) {
					errs = append(errs, fmt.Errorf("%s: %v is no figure", g.Name, v))
				}
			}
		}
		for _, t := range s.Tables {
			for _, row := range t.Rows {
				if len(row) != len(t.Header) {
					errs = append(errs, fmt.Errorf("%s: table %q: a row has %d cells under %d heads", s.ID, t.Title, len(row), len(t.Header)))
				}
			}
			if len(t.Rows) == 0 {
				errs = append(errs, fmt.Errorf("%s: table %q is empty", s.ID, t.Title))
			}
		}
		for _, p := range s.Plots {
			path := filepath.Join(dir, "plots", s.ID+"-"+p.ID)
			errs = append(errs, checkPNG(path+".png"), checkXML(path+".svg"))
		}
	}
	return errors.Join(errs...)
}

func checkPNG(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, err := png.Decode(bytes.NewReader(b)); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

func checkXML(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := d.Token(); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
}
