package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// writeDiff writes what distinguishes two texts of a file, as diff -u does;
// nothing when they are equal.
func writeDiff(w io.Writer, name, before, after string) {
	if before == after {
		return
	}
	fmt.Fprintf(w, "--- %s\n+++ %s\n", name, name)
	edits := diffLines(lines(before), lines(after))
	const context = 3
	for i := 0; i < len(edits); {
		if edits[i].kind == ' ' {
			i++
			continue
		}
		start, end, quiet := max(0, i-context), i, 0
		for end < len(edits) && quiet <= 2*context {
			if quiet++; edits[end].kind != ' ' {
				quiet = 0
			}
			end++
		}
		end -= max(0, quiet-context)
		writeHunk(w, edits, start, end)
		i = end
	}
}

func lines(text string) []string {
	list := strings.SplitAfter(text, "\n")
	if list[len(list)-1] == "" {
		list = list[:len(list)-1]
	}
	return list
}

// edit is a line of either text: ' ' of both, '-' of the first, '+' of the
// second.
type edit struct {
	kind byte
	line string
}

func writeHunk(w io.Writer, edits []edit, start, end int) {
	oldLine, newLine := 1, 1
	for _, e := range edits[:start] {
		oldLine += count(e.kind != '+')
		newLine += count(e.kind != '-')
	}
	olds, news := 0, 0
	for _, e := range edits[start:end] {
		olds += count(e.kind != '+')
		news += count(e.kind != '-')
	}
	fmt.Fprintf(w, "@@ -%d,%d +%d,%d @@\n", oldLine-count(olds == 0), olds, newLine-count(news == 0), news)
	for _, e := range edits[start:end] {
		fmt.Fprintf(w, "%c%s", e.kind, e.line)
		if !strings.HasSuffix(e.line, "\n") {
			fmt.Fprint(w, "\n\\ No newline at end of file\n")
		}
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// maxTable bounds the memory of a comparison; larger differences are shown as
// one.
const maxTable = 4 << 20

// diffLines finds the longest common lines of two texts.
func diffLines(a, b []string) []edit {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append(tail, edit{' ', a[len(a)-1]})
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	out := head
	if len(a)*len(b) <= maxTable {
		out = append(out, align(a, b)...)
	} else {
		out = append(out, align(a, nil)...)
		out = append(out, align(nil, b)...)
	}
	for i := len(tail) - 1; i >= 0; i-- {
		out = append(out, tail[i])
	}
	return out
}

func align(a, b []string) []edit {
	width := len(b) + 1
	common := make([]int32, (len(a)+1)*width) // longest common lines of the rests
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i*width+j] = common[(i+1)*width+j+1] + 1
			} else {
				common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
			}
		}
	}
	var out []edit
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, edit{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[(i+1)*width+j] >= common[i*width+j+1]:
			out = append(out, edit{'-', a[i]})
			i++
		default:
			out = append(out, edit{'+', b[j]})
			j++
		}
	}
	return out
}

// keepOwner gives a file the owner of another, as far as the process may.
func keepOwner(path string, like fs.FileInfo) error {
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}
