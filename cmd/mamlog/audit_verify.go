package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"mamlog/audit"
	"mamlog/log"
)

func newAuditVerifyCommand(a *app) *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Verify proofs and checkpoints with the public key alone",
		Long: `Verify checkpoints, and proofs that 'mamlog audit prove' made, with nothing but the
public key that 'mamlog audit key' printed: no store, no configuration, no server.

Everything that is given has to belong to one history: of two checkpoints, also of
those inside of proofs, it wants a proof that one has grown from the other, unless
they sign the same. It exits with 5 where something is not right.`,
		Example: `  mamlog audit verify --key mamlog.pub event.json
  mamlog audit verify --key mamlog.pub 2026-11-27.note growth.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile == "" {
				return errors.New("--key is missing: the file with what 'mamlog audit key' printed")
			}
			text, err := os.ReadFile(keyFile)
			if err != nil {
				return &failure{exitFailed, err}
			}
			key, err := note.NewVerifier(strings.TrimSpace(string(text)))
			if err != nil {
				return &failure{exitFailed, fmt.Errorf("%s: this is not a public key as 'mamlog audit key' prints it", keyFile)}
			}
			v := &auditVerifier{key: key}
			for _, file := range args {
				content, err := os.ReadFile(file)
				if err != nil {
					return &failure{exitFailed, err}
				}
				words, err := v.file(content)
				if err != nil {
					return &failure{exitTampered, fmt.Errorf("%s: %w", file, err)}
				}
				fmt.Fprintf(a.out, "%s: %s\n", harmless(file), words)
			}
			if err := v.oneHistory(); err != nil {
				return &failure{exitTampered, err}
			}
			return nil
		},
	}
	c.Flags().Var((*textFlag)(&keyFile), "key", "the `FILE` with the public key")
	c.MarkFlagFilename("key")
	return c
}

// auditVerifier verifies files and remembers which checkpoints they hold.
type auditVerifier struct {
	key         note.Verifier
	checkpoints []audit.Checkpoint
	history     []int // by checkpoint: those with the same number are of one history
}

// file verifies one file and tells what it shows.
func (v *auditVerifier) file(content []byte) (words string, err error) {
	if !bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		c, err := audit.OpenCheckpoint(content, v.key)
		if err != nil {
			return "", err
		}
		v.add(c)
		return "the history signed at " + clock(c.Time) + ": " + headWords(c), nil
	}
	var kind struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(content, &kind); err != nil {
		return "", fmt.Errorf("this is not a proof: %w", err)
	}
	switch kind.Kind {
	case audit.InclusionKind:
		return v.inclusion(content)
	case audit.ConsistencyKind:
		return v.consistency(content)
	}
	return "", errors.New("this is not a proof that 'mamlog audit prove' made")
}

func (v *auditVerifier) inclusion(content []byte) (string, error) {
	p := new(audit.Inclusion)
	if err := json.Unmarshal(content, p); err != nil {
		return "", fmt.Errorf("this is not a proof: %w", err)
	}
	c, err := p.Verify(v.key)
	if err != nil {
		return "", err
	}
	v.add(c)
	words := fmt.Sprintf("the event %s of %s is in the history signed at %s\n  ", p.ID, clock(log.IDTime(p.ID)), clock(c.Time))
	if p.Event == nil {
		return words + "its content is withheld", nil
	}
	e := new(log.Event)
	if err := proto.Unmarshal(p.Event, e); err != nil {
		return "", fmt.Errorf("the event can't be read: %w", err)
	}
	if e.GetPersonalHash() == nil {
		return words + eventParties(e) + eventWords(e), nil
	}
	if p.Personal == nil {
		return words + eventParties(e) + eventWords(e) + " (what was personal in it is withheld or erased)", nil
	}
	if e, err = e.Whole(p.Personal); err != nil {
		return "", fmt.Errorf("the personal content of the event: %w", err)
	}
	return words + eventParties(e) + eventWords(e), nil
}

// eventParties say whom an event is about and who caused it.
func eventParties(e *log.Event) string {
	m := e.ProtoReflect()
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if kind == nil {
		return ""
	}
	words := string(kind.Name())
	fields := kind.Message().Fields()
	for _, of := range []struct{ before, field string }{{"of", "owner"}, {"of", "host"}, {"by", "actor"}} {
		if f := fields.ByTextName(of.field); f != nil {
			if s := m.Get(kind).Message().Get(f).String(); s != "" {
				words += " " + of.before + " " + harmless(s)
			}
		}
	}
	return words + ": "
}

func (v *auditVerifier) consistency(content []byte) (string, error) {
	p := new(audit.Consistency)
	if err := json.Unmarshal(content, p); err != nil {
		return "", fmt.Errorf("this is not a proof: %w", err)
	}
	from, to, err := p.Verify(v.key)
	if err != nil {
		return "", err
	}
	v.join(v.add(from), v.add(to))
	return fmt.Sprintf("the history has only grown\n  from %s: %s\n  to   %s: %s", clock(from.Time), headWords(from), clock(to.Time), headWords(to)), nil
}

func headWords(c audit.Checkpoint) string {
	var words []string
	for _, h := range c.Heads {
		words = append(words, fmt.Sprintf("%d events in %s", h.Size, harmless(h.Store)))
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// add returns the place of c, which is of the history of those that sign the same.
func (v *auditVerifier) add(c audit.Checkpoint) int {
	n := len(v.checkpoints)
	v.checkpoints, v.history = append(v.checkpoints, c), append(v.history, n)
	for i, other := range v.checkpoints[:n] {
		if other.Same(c) {
			v.join(i, n)
		}
	}
	return n
}

func (v *auditVerifier) join(a, b int) {
	from, to := v.history[b], v.history[a]
	for i, h := range v.history {
		if h == from {
			v.history[i] = to
		}
	}
}

// oneHistory fails where nothing shows that two checkpoints are of one history.
func (v *auditVerifier) oneHistory() error {
	for i, h := range v.history {
		if h != v.history[0] {
			return fmt.Errorf("nothing here shows that the histories signed at %s and at %s are one; 'mamlog audit prove --from' with the older of them makes a proof",
				clock(v.checkpoints[0].Time), clock(v.checkpoints[i].Time))
		}
	}
	return nil
}
