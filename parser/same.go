package parser

import (
	"fmt"
	"slices"
)

// Same reports how two texts of one file differ in more than their layout: in
// a word as it is written, in a comment, or in where a block begins or ends.
// Included files are not compared.
func Same(a, b *File) error {
	if err := sameBlocks(a.Body, b.Body); err != nil {
		return err
	}
	if ca, cb := comments(a), comments(b); !slices.Equal(ca, cb) {
		return fmt.Errorf("comments differ: %d here, %d there", len(ca), len(cb))
	}
	return nil
}

func sameBlocks(a, b *Block) error {
	for i, d := range a.Items {
		if i == len(b.Items) {
			return fmt.Errorf("line %d: %s is lost", d.Name.Range.Line(), d.Name.Value)
		}
		e := b.Items[i]
		same := slices.EqualFunc(d.Args, e.Args, func(x, y Arg) bool { return x.Value == y.Value && x.Raw() == y.Raw() })
		if !same || d.Name.Raw() != e.Name.Raw() || (d.Block == nil) != (e.Block == nil) {
			return fmt.Errorf("line %d: %s differs", d.Name.Range.Line(), d.Name.Value)
		}
		if d.Block != nil {
			if err := sameBlocks(d.Block, e.Block); err != nil {
				return err
			}
		}
	}
	if n := len(a.Items); n < len(b.Items) {
		return fmt.Errorf("%s is new", b.Items[n].Name.Value)
	}
	return nil
}
