package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	adminv1 "mamlog/admin/v1"
	"mamlog/log"
)

var errBusy = connect.NewError(connect.CodeFailedPrecondition, errors.New("a rebuild or a check is running already; a check ends with the command that asked for it, a rebuild by itself"))

// tellEvery is how often a stream tells how far it is.
const tellEvery = 200 * time.Millisecond

// Rebuild makes the projections of one store or of all anew from the log.
func (s *Service) Rebuild(ctx context.Context, r *connect.Request[adminv1.RebuildRequest], stream *connect.ServerStream[adminv1.RebuildResponse]) error {
	return s.each(r.Msg.GetStore(), func(name string, store Store) error {
		s.Logger.Info("rebuild", zap.String("store", name), zap.String("actor", Caller(ctx)))
		records := 0
		tell := throttle(func(n int) {
			// A caller who has left misses the words, not the work.
			_ = stream.Send(&adminv1.RebuildResponse{Store: name, Records: uint64(n)})
		})
		err := store.Projections.Rebuild(func(n int) {
			records = n
			tell(n)
		})
		if err != nil {
			return fmt.Errorf("rebuild the store %s: %w", name, err)
		}
		return stream.Send(&adminv1.RebuildResponse{Store: name, Records: uint64(records), Done: true})
	})
}

// Check compares the projections of one store or of all with the log.
func (s *Service) Check(ctx context.Context, r *connect.Request[adminv1.CheckRequest], stream *connect.ServerStream[adminv1.CheckResponse]) error {
	return s.each(r.Msg.GetStore(), func(name string, store Store) error {
		report, err := store.Projections.Check(ctx, throttle(func(n int) {
			_ = stream.Send(&adminv1.CheckResponse{Store: name, Records: uint64(n)})
		}))
		if errors.Is(err, log.ErrNotAsRecorded) {
			return stream.Send(&adminv1.CheckResponse{Store: name, Done: true, Differences: 1, Tampered: 1, Problems: []string{err.Error()}})
		}
		if err != nil {
			return fmt.Errorf("check the store %s: %w", name, err)
		}
		wrong, err := s.checkCheckpoints(name)
		if err != nil {
			return fmt.Errorf("check the store %s: %w", name, err)
		}
		gone, err := s.checkErasures(name)
		if err != nil {
			return fmt.Errorf("check the store %s: %w", name, err)
		}
		wrong = append(wrong, gone...)
		report.Differences += len(wrong)
		report.Tampered += len(wrong)
		report.Problems = append(report.Problems, wrong...)
		switch {
		case report.Tampered > 0:
			s.Logger.Error("the audit records of the log are not those that were written and signed", zap.String("store", name), zap.Int("differences", report.Tampered))
		case report.Differences > 0:
			s.Logger.Error("rows differ from the log: rebuild the store", zap.String("store", name), zap.Int("differences", report.Differences))
		}
		return stream.Send(&adminv1.CheckResponse{
			Store: name, Records: uint64(report.Records), Done: true,
			Rows: uint64(report.Rows), Differences: uint64(report.Differences), Problems: report.Problems,
			Tampered: uint64(report.Tampered),
		})
	})
}

// each calls do for the named store, or for all if name is empty.
func (s *Service) each(name string, do func(string, Store) error) error {
	names, err := s.named(name)
	if err != nil {
		return err
	}
	if !s.maintenance.TryLock() {
		return errBusy
	}
	defer s.maintenance.Unlock()
	s.running.Add(1)
	defer s.running.Done()
	for _, n := range names {
		if err := do(n, s.Stores[n]); err != nil {
			return err
		}
	}
	return nil
}

func throttle(tell func(int)) func(int) {
	last := time.Now()
	return func(n int) {
		if now := time.Now(); now.Sub(last) >= tellEvery {
			last = now
			tell(n)
		}
	}
}
