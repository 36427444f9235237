package parser

// problems gives the errors of a tree in reading order, as a driver that
// checks nothing itself meets them.
func problems(f *File) []*Diagnostic {
	var all []*Diagnostic
	var block func(b *Block)
	block = func(b *Block) {
		for _, d := range b.Items {
			if d.Err != nil {
				all = append(all, d.Err)
			}
			for _, f := range d.Files {
				block(f.Body)
			}
			if d.Block != nil && !d.Name.Range.IsZero() {
				block(d.Block)
			}
		}
	}
	block(f.Body)
	return all
}

// firstProblem is what nginx would report, or nil.
func firstProblem(f *File) *Diagnostic {
	if all := problems(f); len(all) > 0 {
		return all[0]
	}
	return nil
}
