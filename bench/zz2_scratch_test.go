//go:build servers

package bench
import ("testing";"time")
func TestScratchMnesia(t *testing.T){
 b,err:=New(Tiny()); if err!=nil{t.Fatal(err)}
 defer b.Close()
 b.Options.Progress=func(s string){t.Log(time.Now().Format("05.0"),s)}
 var all []*contents
 for _,n:=range []int{1000,10000,100000} {all=append(all,newContents(b.text,1,"owner",n,time.Now())); all[len(all)-1].User+=string(rune('a'+len(all)))}
 f,err:=b.launch(t.Context(),[]contender{ejabberdMnesia},systemOptions{contents:all}); if err!=nil{t.Fatal(err)}
 defer f.close()
 b.say("filled")
 for _,c:=range all {
 f.systems[0].register(t.Context(),c.User)
 p,err:=newPager(t.Context(),f.systems[0],c,"r"); if err!=nil{t.Fatal(err)}
 for _,k:=range pageKinds { if c.having(k.with).n==0 {continue}
  r,err:=readPages(t.Context(),[]*pager{p},k,time.Second); t.Log(c.N,k.Name,r.rate,r.wrong,r.first,err) }
 }
}
