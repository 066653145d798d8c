package integrations

import (
	"embed"
	"fmt"
	"io/fs"
	"testing"

	"mamlog/cmd/mamlog/conformance"
)

// testdata has, for each server, what of the suite does not hold there, with the
// reasons, and transcripts of what holds there alone or instead.
//
//go:embed testdata
var testdata embed.FS

func loadSuite(k kind) (s conformance.Suite, err error) {
	own, err := fs.Sub(testdata, "testdata/"+k.name)
	if err != nil {
		return s, err
	}
	for _, load := range []func() ([]*conformance.Transcript, error){
		conformance.Transcripts, conformance.Rooms, func() ([]*conformance.Transcript, error) { return conformance.LoadTranscripts(own) },
	} {
		ts, err := load()
		if err != nil {
			return s, err
		}
		s.Transcripts = append(s.Transcripts, ts...)
	}
	text, err := fs.ReadFile(testdata, "testdata/"+k.name+".differences")
	if err != nil {
		return s, err
	}
	s.Cases = conformance.Cases()
	s.Differ, err = conformance.ParseDifferences(string(text))
	return s, err
}

// TestConformance plays the transcripts about accounts and rooms, and the cases,
// on both servers.
func TestConformance(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		suite, err := loadSuite(k)
		if err != nil {
			t.Fatal(err)
		}
		s := sharedSite(t, k)
		suite.Play(t, func(_ *testing.T, config string) (conformance.Host, error) {
			domain, ok := s.hosts[config]
			if !ok {
				return conformance.Host{}, fmt.Errorf("no host of %s has the options %q", k.name, config)
			}
			return s.host(domain), nil
		})
	})
}
