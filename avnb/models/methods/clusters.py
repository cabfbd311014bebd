"""`xdc`: the clusters of one modality are the labels of the other."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from avnb import distributed
from avnb.config import Pretrain
from avnb.data.clips import Batch
from avnb.models.losses import at_least_float
from avnb.models.methods.base import Method, Terms, derive_seed
from avnb.models.methods.xid import MemoryBank


class CrossModalClusters(Method):
    r"""Each encoder predicts the cluster that k-means gives the other modality of its video.

        L = 1/2B sum_i ( CE(W_v y_v + b_v; cluster of a_i) + CE(W_a y_a + b_a; cluster of v_i) )

    Alwassel et al. 2020, arXiv:1911.12667. Clusters are of unit features, of which a bank keeps an
    exponential moving average over the clips of every video. They are found anew at the beginning
    of every epoch, when the weights of the linear layers start again (Adam's moments are kept), and
    are stored with the run. The first epoch only collects features of the initial encoders.
    """

    title = "XDC"
    colour = "#8c564b"
    video_clusters: Tensor
    audio_clusters: Tensor
    assigned_at: Tensor

    def __init__(self, config: Pretrain, videos: int, classes: int):
        super().__init__(config, videos, classes)
        if config.optim.epochs < 2:
            raise ValueError("xdc needs at least 2 epochs: the first only collects features")
        width, seed = self.video_encoder.features, config.seed
        self.count = min(config.peers.clusters, videos)
        self.video_bank, self.audio_bank = (
            MemoryBank(videos, width, momentum=config.xid.bank_momentum, seed=derive_seed(seed, k))
            for k in (1, 2)
        )
        self.video_classifier, self.audio_classifier = (
            nn.Linear(width, self.count) for _ in range(2)
        )
        self.register_buffer("video_clusters", torch.zeros(videos, dtype=torch.long))
        self.register_buffer("audio_clusters", torch.zeros(videos, dtype=torch.long))
        self.register_buffer("assigned_at", torch.tensor(0.0, dtype=torch.double))
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []  # video, features
        self.collects = False  # whether this step only does so

    @torch.no_grad()
    def assign(self) -> None:
        """Cluster both banks, on one process for all; linear layers start again from 0."""
        from sklearn.cluster import KMeans  # takes a second to import

        banks = (self.video_bank, self.video_clusters), (self.audio_bank, self.audio_clusters)
        for bank, clusters in banks:
            if distributed.rank() == 0:
                means = KMeans(self.count, n_init=1, random_state=self.config.seed)
                found = means.fit_predict(bank.rows.double().cpu().numpy())
                clusters.copy_(torch.from_numpy(found))
            if distributed.world_size() > 1:
                dist.broadcast(clusters, 0)
        for layer in (self.video_classifier, self.audio_classifier):
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)

    def forward(self, batch: Batch, progress: float) -> Terms:
        """Loss, its two parts, and the fraction of clips whose clusters are predicted."""
        self.collects = progress == 0
        if self.training and not self.collects and self.assigned_at != progress:
            self.assign()
            self.assigned_at.fill_(progress)
        with self.autocast(batch):
            v, a = self.video_encoder(batch.frames), self.audio_encoder(batch.audio)
            logits = self.video_classifier(v), self.audio_classifier(a)
        self.record(video=v, audio=a)
        if self.training:
            self.pending.append((batch.video_index, v.detach(), a.detach()))
        labels = (x[batch.video_index] for x in (self.audio_clusters, self.video_clusters))
        pairs = list(zip(at_least_float(*logits), labels, strict=True))
        video, audio = (F.cross_entropy(*pair) for pair in pairs)
        right = torch.stack([(x.argmax(1) == label).float().mean() for x, label in pairs]).mean()
        return {"loss": (video + audio) / 2, "video": video, "audio": audio, "accuracy": right}

    def before_step(self, step: int) -> None:
        """Leave all weights as they are in the first epoch."""
        if self.collects:
            self.zero_grad(set_to_none=True)  # Adam skips parameters without a gradient

    def after_step(self) -> None:
        """Update the banks with the unit features of all processes."""
        columns = zip(*self.pending, strict=True)
        video, v, a = (distributed.gather_rows(torch.cat(parts)) for parts in columns)
        v, a = (F.normalize(x, dim=1) for x in at_least_float(v, a))
        self.video_bank.update(video, v)
        self.audio_bank.update(video, a)
        self.pending.clear()
