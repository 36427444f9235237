package resolver

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Target is one address of a service.
type Target struct {
	Address          netip.AddrPort
	Name             string // of the server
	Priority, Weight int
}

// Service is what a service was resolved to.
type Service struct {
	Targets []Target // by priority; those of one priority in turn from a random one on
	Valid   int64    // until when it counts, in seconds since 1970
	Failed  []NameError
}

// NameError is a server of a service that has no address.
type NameError struct {
	Name string
	Err  error
}

// ServiceName is what is asked for: "_http._tcp.example.com" for the service
// "http", and a service with a dot as it is.
func ServiceName(service, name string) string {
	if strings.Contains(service, ".") {
		return service + "." + name
	}
	return "_" + service + "._tcp." + name
}

// Addresses finds the addresses of a name, as those of a service with one
// server. The error is that of Lookup.
func (r *Resolver) Addresses(ctx context.Context, name string, port uint16) (Service, error) {
	addrs, valid, err := r.lookup(ctx, nil, name)
	s := Service{Valid: valid}
	for _, a := range addrs {
		s.Targets = append(s.Targets, Target{Address: netip.AddrPortFrom(a, port), Name: name, Weight: 1})
	}
	return s, err
}

// Service finds the servers of a service and their addresses. ctx makes the
// context of one look-up, with its time limit. The error is that of Lookup.
func (r *Resolver) Service(ctx func() (context.Context, context.CancelFunc), service, name string) (Service, error) {
	s := Service{Valid: r.failedUntil()}
	first, cancel := ctx()
	k := nameKey(ServiceName(service, strings.TrimSuffix(name, ".")))
	k.service = true
	e, _, err := r.follow(first, k)
	cancel()
	if err != nil {
		return s, err
	}
	s.Valid = e.result.valid
	srvs := slices.Clone(e.result.srvs)
	slices.SortStableFunc(srvs, func(a, b target) int { return cmp.Compare(a.priority, b.priority) })
	found := r.addresses(ctx, srvs)
	for i := range found {
		if err := found[i].err; err != nil {
			s.Failed = append(s.Failed, NameError{srvs[i].name, err})
			continue
		}
		s.Valid = min(s.Valid, found[i].valid)
	}
	for i := 0; i < len(srvs); {
		j := i
		for j < len(srvs) && srvs[j].priority == srvs[i].priority {
			j++
		}
		s.Targets = appendTurn(s.Targets, srvs[i:j], found[i:j])
		i = j
	}
	if len(s.Targets) == 0 {
		s.Valid = r.failedUntil()
		return s, failureOf(s.Failed)
	}
	return s, nil
}

// located is what the name of one server was resolved to.
type located struct {
	addrs []netip.Addr
	valid int64
	err   error
}

// maxTargets bounds the names that are resolved for one service.
const maxTargets = 256

// addresses resolves the names of all servers at the same time.
func (r *Resolver) addresses(ctx func() (context.Context, context.CancelFunc), srvs []target) []located {
	found := make([]located, len(srvs))
	var wg sync.WaitGroup
	for i := range srvs {
		if i >= maxTargets {
			found[i].err = ServerFailure
			continue
		}
		wg.Go(func() {
			c, cancel := ctx()
			defer cancel()
			f := &found[i]
			f.addrs, f.valid, f.err = r.lookup(c, nil, srvs[i].name)
		})
	}
	wg.Wait()
	return found
}

// failureOf says why no server of a service has an address.
func failureOf(failed []NameError) error {
	for _, f := range failed {
		if errors.Is(f.Err, NotFound) {
			return NotFound
		}
	}
	if len(failed) == 0 {
		return NotFound
	}
	return failed[0].Err
}

// appendTurn appends the addresses of servers of one priority, from one that is
// chosen by weight on (ngx_resolver_report_srv).
func appendTurn(dst []Target, srvs []target, found []located) []Target {
	total := 0
	for i := range srvs {
		total += len(found[i].addrs) * int(srvs[i].weight)
	}
	if total == 0 {
		return dst
	}
	first, left := 0, rand.IntN(total)
	for ; left >= len(found[first].addrs)*int(srvs[first].weight); first++ {
		left -= len(found[first].addrs) * int(srvs[first].weight)
	}
	for n := range srvs {
		k := (first + n) % len(srvs)
		for _, a := range found[k].addrs {
			dst = append(dst, Target{netip.AddrPortFrom(a, srvs[k].port), srvs[k].name, int(srvs[k].priority), int(srvs[k].weight)})
		}
	}
	return dst
}
