package verify

import (
	"fmt"
	"io"
	"strings"
)

// Write prints a report for people.
func Write(w io.Writer, r *Report, color bool) {
	tint := func(code, s string) string {
		if color {
			return "\x1b[" + code + "m" + s + "\x1b[0m"
		}
		return s
	}
	fmt.Fprintf(w, "nginx %s (%s) and this server were asked %s in %.1f s.\n", r.Version, r.Nginx, plural(r.Compared, "thing"), r.Seconds)
	fmt.Fprintf(w, "Reached: %d of %s, %d of %s.\n", r.Servers.Reached, plural(r.Servers.Of, "server"), r.Locations.Reached, plural(r.Locations.Of, "location"))
	if l := r.Log; l != nil {
		fmt.Fprintf(w, "From %s: %s replayed of %d read; %d not understood, %d not safe to repeat, %d the same as others.\n", l.File, plural(l.Replayed, "request"), l.Lines, l.NotUnderstood, l.NotSafe, l.Repeated)
	}
	if r.Skipped > 0 {
		fmt.Fprintf(w, "%s left out for lack of time (--budget, --max).\n", plural(r.Skipped, "request"))
	}
	if r.Unstable > 0 {
		fmt.Fprintf(w, "%s not counted: there one of both answers differently each time.\n", plural(r.Unstable, "difference"))
	}
	list(w, tint, "1", "Not compared", len(r.LeftOut), func(i int) string {
		l := r.LeftOut[i]
		return fmt.Sprintf("%-24s %4d×  %s", l.Name, l.Count, l.Why)
	})
	list(w, tint, "1", "Not reached", min(len(r.NotReached), maxListed), func(i int) string {
		u := r.NotReached[i]
		return fmt.Sprintf("%s (%s): %s", u.Title, u.Place, u.Why)
	})
	if n := len(r.NotReached) - maxListed; n > 0 {
		fmt.Fprintf(w, "  and %d more (--format json has them)\n", n)
	}
	for i := range r.Changes {
		f := &r.Changes[i]
		fmt.Fprintf(w, "\n%s %s: %s\n", tint("1;33", "changed in nginx "+f.Since), f.What, f.Note)
		fmt.Fprintf(w, "  %s, first %s\n", plural(f.Count, "request"), f.Place)
	}
	for i := range r.Stricter {
		f := &r.Stricter[i]
		fmt.Fprintf(w, "\n%s %s\n", tint("1;33", "stricter here:"), f.Note)
		fmt.Fprintf(w, "  %s, as %s\n", plural(f.Count, "request"), printable(f.Try))
	}
	for i := range r.Differences {
		writeFinding(w, &r.Differences[i], tint)
	}
	fmt.Fprintln(w)
	if r.Equal() {
		fmt.Fprintln(w, tint("1;32", "No difference was found."))
	} else {
		fmt.Fprintln(w, tint("1;31", plural(len(r.Differences), "difference")+" found."))
	}
	if r.Kept != "" {
		fmt.Fprintf(w, "Configuration and logs of both: %s\n", r.Kept)
	}
}

const maxListed = 20

func list(w io.Writer, tint func(string, string) string, code, title string, n int, line func(int) string) {
	if n == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", tint(code, title))
	for i := range n {
		fmt.Fprintf(w, "  %s\n", line(i))
	}
}

func writeFinding(w io.Writer, f *Finding, tint func(string, string) string) {
	fmt.Fprintf(w, "\n%s  %s\n", tint("1;31", "differs: "+f.What), tint("2", plural(f.Count, "request")))
	fmt.Fprintf(w, "  %s %s\n", tint("32", "nginx:"), printable(f.Nginx))
	fmt.Fprintf(w, "  %s  %s\n", tint("31", "here:"), printable(f.Here))
	fmt.Fprintf(w, "  for    %s (%s)\n", printable(f.About), f.Place)
	if f.Server != "" {
		fmt.Fprintf(w, "  server %s\n", printable(f.Server))
	}
	if f.Location != "" {
		fmt.Fprintf(w, "         %s\n", printable(f.Location))
	}
	if len(f.Others) > 0 {
		fmt.Fprintf(w, "  also   %s\n", strings.Join(f.Others, ", "))
	}
	fmt.Fprintf(w, "  try    %s\n", printable(f.Try))
}

// printable keeps a terminal from being told anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
