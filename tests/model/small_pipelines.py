"""Small diffusers pipelines built from configs, with random weights: a picture's, a video's, a sound's."""

import json

import torch

WIDTH = 32  # of the text condition
LENGTH = 77  # of CLIP's prompts


def clip_tokenizer(folder):
    """Write a byte-level CLIP tokenizer that knows no merges."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)


def clip_text(words):
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextModel(CLIPTextConfig(vocab_size=words, max_position_embeddings=LENGTH, **sizes))


def scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler(steps_offset=1, clip_sample=False)


def autoencoder(channels):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[16, 16],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=8,
    )


def picture_pipeline(folder):
    """Write a Stable Diffusion pipeline for pictures of 16 x 16 pixels."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder / "words")
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=[16, 32],
        layers_per_block=1,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    StableDiffusionPipeline(
        autoencoder(3),
        clip_text(len(tokenizer)),
        tokenizer,
        unet,
        scheduler(),
        None,
        None,
        None,
        False,
    ).save_pretrained(folder / "image")
    return folder / "image"


def video_pipeline(folder):
    """Write a text-to-video pipeline."""
    from diffusers import TextToVideoSDPipeline, UNet3DConditionModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder / "words")
    unet = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=[8, 16],
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock3D", "DownBlock3D"],
        up_block_types=["UpBlock3D", "CrossAttnUpBlock3D"],
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    TextToVideoSDPipeline(autoencoder(3), clip_text(len(tokenizer)), tokenizer, unet, scheduler()).save_pretrained(
        folder / "video"
    )
    return folder / "video"


def sound_pipeline(folder):
    """Write an AudioLDM pipeline."""
    from diffusers import AudioLDMPipeline, UNet2DConditionModel
    from transformers import (
        ClapTextConfig,
        ClapTextModelWithProjection,
        RobertaTokenizer,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
    )

    torch.manual_seed(0)
    words = folder / "words-roberta"
    words.mkdir(parents=True, exist_ok=True)
    known = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(chr(c) for c in range(33, 127)), "Ġ"]
    (words / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(known)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = RobertaTokenizer.from_pretrained(words, model_max_length=77)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=[8, 16],
        layers_per_block=1,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        cross_attention_dim=(None, 16),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=WIDTH,
        class_embeddings_concat=True,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    text = ClapTextModelWithProjection(
        ClapTextConfig(
            vocab_size=len(known),
            hidden_size=16,
            intermediate_size=37,
            num_attention_heads=2,
            num_hidden_layers=2,
            projection_dim=WIDTH,
            max_position_embeddings=100,
        )
    )
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=8,
            sampling_rate=16000,
            upsample_initial_channel=16,
            upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4],
            resblock_kernel_sizes=[3, 7],
            resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
            normalize_before=False,
        )
    )
    AudioLDMPipeline(autoencoder(1), text, tokenizer, unet, scheduler(), vocoder).save_pretrained(folder / "audio")
    return folder / "audio"
